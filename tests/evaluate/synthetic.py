"""Made-up report inputs: a drawn face whose mouth follows a curve."""

from __future__ import annotations

import cv2
import numpy as np

from xdub.demo.page import ClipView, ReportData
from xdub.seeding import rng


def opening(seed: int, frames: int = 60) -> np.ndarray:
    kernel = np.hanning(9) / np.hanning(9).sum()
    curve = np.convolve(rng("opening", seed).random(frames + 8), kernel, mode="valid")
    return np.clip((curve - 0.35) * 0.5, 0, None)


def faces(curve: np.ndarray, size: int = 128) -> np.ndarray:
    frames = np.zeros((len(curve), size, size, 3), np.uint8)
    c = size // 2
    for i, value in enumerate(curve):
        frames[i] = (70, 96, 120)
        cv2.ellipse(
            frames[i],
            (c, c),
            (int(size * 0.33), int(size * 0.42)),
            0,
            0,
            360,
            (214, 168, 142),
            -1,
            cv2.LINE_AA,
        )
        for x in (-1, 1):
            cv2.circle(
                frames[i], (c + x * size // 7, int(c * 0.8)), size // 28, (40, 30, 30), -1, cv2.LINE_AA
            )
        axes = (size // 9, max(2, int(value * size)))
        cv2.ellipse(frames[i], (c, int(c * 1.42)), axes, 0, 0, 360, (150, 50, 60), -1, cv2.LINE_AA)
    return frames


def landmarks(frames: int, size: int = 128) -> np.ndarray:
    points = np.full((frames, 68, 2), size / 2, np.float32)
    angles = np.linspace(np.pi, 3 * np.pi, 20, endpoint=False)
    points[:, 48:68, 0] = size / 2 + np.cos(angles) * size / 9
    points[:, 48:68, 1] = size * 0.71 + np.sin(angles) * size / 20
    points[:, 54] = [size / 2 + size / 9, size * 0.71]
    points[:, 36:42] = [size / 2 - size / 7, size * 0.4]
    points[:, 42:48] = [size / 2 + size / 7, size * 0.4]
    points[:, 33] = [size / 2, size * 0.6]
    return points


def clip_view(seed: int, name: str) -> ClipView:
    noise = rng("noise", seed)
    old, new = opening(seed), opening(seed + 100)
    made = {"generator": 0.7 * new + 0.02, "editor": new + 0}
    read = {key: value + noise.normal(0, 0.012, len(new)) for key, value in made.items()}
    return ClipView(
        name=name,
        frames={"source": faces(old), "generator": faces(made["generator"]), "editor": faces(made["editor"]),
                "truth": faces(new)},
        landmarks=landmarks(len(new)),
        openings={"truth": new, "old": old, **read},
        opening_corr={key: float(np.corrcoef(value, new)[0, 1]) for key, value in read.items()},
    )  # fmt: skip


def summary(warm: bool = True) -> dict:
    model = {
        "leak_corr": 0.03,
        "lip_psnr": 24.1,
        "outside_psnr": 41.0,
        "raw_outside_psnr": 29.5,
        "silence_opening": 0.004,
    }
    return {
        "truth": 0.981, "codec": 0.942, "seed": 7, "warm_start": warm, "peak_gb": 4.31,
        "generator": {"opening_corr": 0.78, **model, "lip_psnr": 22.9},
        "editor": {"opening_corr": 0.91, **model},
        "seconds": {"render": 96.0, "train generator": 130.0, "make pairs": 61.0, "train editor": 140.0,
                    "train lip expert": 35.0, "train texture expert": 33.0,
                    "dub held-out": 88.0, "evaluate": 21.0},
        "versions": {"xdub": "0.1.0", "torch": "2.13.0", "ray": "2.60.0", "python": "3.11.7"},
        "hardware": {"name": "2 cores, no GPU", "cores": 2, "memory": "8.0 GB"},
        "details": {m: {"leak_corr": {"raw": 0.05, "chance": 0.04}} for m in ("generator", "editor")},
        "evaluated": {"clips": 10, "frames": 600},
    }  # fmt: skip


def report_data(warm: bool = True) -> ReportData:
    noise = rng("loss")
    steps = list(range(10, 400, 10))
    curve = {phase: (steps, [0.9 * np.exp(-s / 150) + 0.3 + noise.normal(0, 0.03) for s in steps])
             for phase in ("generator", "editor", "lip", "texture")}  # fmt: skip
    return ReportData(
        summary=summary(warm),
        clips=[clip_view(1, "Held-out clip 1"), clip_view(2, "Held-out clip 2")],
        losses=curve,
        mlflow_command="mlflow ui --backend-store-uri sqlite:////demo/mlflow.db\nhttp://127.0.0.1:5000/#/compare",
    )
