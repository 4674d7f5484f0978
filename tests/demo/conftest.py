"""Synthetic content of a demo's report: drawn faces, smooth curves, plausible figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xdub.demo.report_data import ClipView, ReportData
from xdub.evaluate.testing import drawn_faces, drawn_landmarks, opening_curve
from xdub.seeding import rng


def clip_view(seed: int, name: str) -> ClipView:
    noise = rng("noise", seed)
    old, new = opening_curve(seed), opening_curve(seed + 100)
    true = {"generator": 0.7 * new + 0.02, "editor": new + 0}
    read = {key: value + noise.normal(0, 0.012, len(new)) for key, value in true.items()}
    frames = {"source": old, **true, "truth": new}
    return ClipView(
        name=name,
        frames={key: drawn_faces(opening) for key, opening in frames.items()},
        landmarks=drawn_landmarks(len(new)),
        openings={"truth": new, "old": old, **read},
        correlations={key: float(np.corrcoef(value, new)[0, 1]) for key, value in read.items()},
    )


def synthetic_summary(warm: bool = True) -> dict[str, Any]:
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


def synthetic_report(warm: bool = True) -> ReportData:
    noise = rng("loss")
    steps = list(range(10, 400, 10))
    losses = {
        phase: (steps, [0.9 * np.exp(-s / 150) + 0.3 + noise.normal(0, 0.03) for s in steps])
        for phase in ("generator", "editor", "lip", "texture")
    }
    return ReportData(
        summary=synthetic_summary(warm),
        clips=[clip_view(1, "Held-out clip 1"), clip_view(2, "Held-out clip 2")],
        losses=losses,
        mlflow_command="mlflow ui --backend-store-uri sqlite:////demo/mlflow.db\nhttp://127.0.0.1:5000/#/compare",
    )


@pytest.fixture
def summary_of() -> Callable[..., dict[str, Any]]:
    """Return a function that builds a summary in which every goal is met; `warm=False`: from random weights."""
    return synthetic_summary


@pytest.fixture(scope="session")
def report_of() -> Callable[..., ReportData]:
    """Return a function that builds the content of a report; `warm=False`: from random weights."""
    return synthetic_report
