"""From dubbed files to figures, and from figures to the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from xdub.demo.cases import case_folders, load_case
from xdub.demo.dubbing import dubbed_file, raw_crops, silent_file
from xdub.demo.page import ClipView, ReportData, build_report
from xdub.demo.stages import MODELS, Demo, Report, copy_whole
from xdub.evaluate.heldout import DubFigures, HeldOutClip, Readings, measure_dub, read_clip, summarise
from xdub.evaluate.metrics import pearson
from xdub.files.atomic import atomic_path, write_text
from xdub.media import read_frames
from xdub.tracking.read import read_runs, ui_command

SHOWN = 3
"""Clips with pictures in the report: the first ones, not the best ones."""


def evaluate(demo: Demo, report: Report) -> dict[str, Any]:
    """Figures of every dubbed case; arrays go to OUT/evaluation, the summary's fields are returned."""
    from xdub.evaluate.opening import read_opening, round_trip
    from xdub.model.codec import load_codec

    codec = load_codec(demo.recipe.codec)
    folders = case_folders(demo.cases)
    readings: list[Readings] = []
    dubs: dict[str, list[DubFigures]] = {model: [] for model in MODELS}
    silent: dict[str, list[np.ndarray]] = {model: [] for model in MODELS}
    for number, folder in enumerate(folders):
        report(number, len(folders), "clips measured")
        clip = load_case(folder, f"Held-out clip {number + 1}")
        readings.append(read_clip(clip, read_opening, lambda crops: round_trip(crops, codec)))
        for model in MODELS:
            frames = read_frames(dubbed_file(demo, model, folder))
            dubs[model].append(measure_dub(clip, frames, raw_crops(demo, model, folder), read_opening))
            quiet = silent_file(demo, model, folder)
            if quiet.is_file():
                silent[model].append(read_opening(clip.crops(read_frames(quiet)), clip.crop_landmarks))
    demo.evaluation.mkdir(exist_ok=True)
    arrays = {f"{n}_{key}": value for n, r in enumerate(readings) for key, value in vars(r).items()}
    for model, figures in dubs.items():
        for n, one in enumerate(figures):
            arrays |= {f"{n}_{model}_{key}": value for key, value in vars(one).items()}
    with atomic_path(demo.evaluation / "arrays.npz") as temporary:
        np.savez_compressed(temporary, **arrays)
    report(len(folders), len(folders), "clips measured")
    summary = summarise(readings, dubs, silent)
    _track(demo, summary)
    frames = sum(len(r.new) for r in readings)
    return {
        **summary,
        "evaluated": {"clips": len(readings), "frames": frames, "silent": len(silent["editor"])},
    }


def write_report(demo: Demo, report: Report) -> dict[str, Any]:
    """OUT/dubbed.mp4; the page itself needs the time of this stage too and is written by `finish`."""
    copy_whole(dubbed_file(demo, "editor", case_folders(demo.cases)[0]), demo.out / "dubbed.mp4")
    report(1, 1, "dubbed.mp4")
    return {}


def finish(demo: Demo, summary: dict[str, Any]) -> str:
    """summary.json and report.html; returns the command for MLflow's page."""
    command = ui_command(read_runs([str(demo.run)]))
    write_text(demo.out / "summary.json", json.dumps(_plain(summary), indent=1, allow_nan=False))
    folders = case_folders(demo.cases)
    with np.load(demo.evaluation / "arrays.npz") as arrays:
        views = [_view(demo, folder, n, arrays) for n, folder in enumerate(folders[:SHOWN])]
    videos = {
        "source": folders[0] / "source.mp4",
        "truth": folders[0] / "truth.mp4",
        "editor": demo.out / "dubbed.mp4",
    }
    data = ReportData(
        summary=summary,
        clips=views,
        losses=read_losses(demo.run),
        mlflow_command=command,
        videos={name: path.read_bytes() for name, path in videos.items()},
    )
    write_text(demo.out / "report.html", build_report(data))
    return command


def _plain(value: Any) -> Any:
    """For JSON, which has no nan: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_losses(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """phase -> steps, loss of every committed step."""
    from xdub.config import PHASES
    from xdub.files.lines import read_lines

    losses = {}
    for phase in PHASES:
        records = list(read_lines(run / phase / "steps.jsonl"))
        if records:
            losses[phase] = ([r["step"] for r in records], [float.fromhex(r["loss"]) for r in records])
    return losses


def _view(demo: Demo, folder: Path, number: int, arrays: Any) -> ClipView:
    clip = load_case(folder, f"Held-out clip {number + 1}")
    frames = {"source": clip.source}
    frames |= {model: read_frames(dubbed_file(demo, model, folder)) for model in MODELS}
    frames |= {"truth": clip.truth}
    x, y, side = close_up(clip)
    openings = {"truth": arrays[f"{number}_new"], "old": arrays[f"{number}_old"]}
    openings |= {model: arrays[f"{number}_{model}_read"] for model in MODELS}
    return ClipView(
        name=clip.name,
        frames={name: film[:, y : y + side, x : x + side] for name, film in frames.items()},
        landmarks=clip.landmarks - np.float32([x, y]),
        openings=openings,
        opening_corr={model: pearson(openings[model], openings["truth"]) for model in MODELS},
    )


def close_up(clip: HeldOutClip) -> tuple[int, int, int]:
    """x, y, side of a still window around the head: faces in a strip must be large enough to be judged."""
    low = (clip.boxes[:, :2] - 0.8 * clip.boxes[:, 2:]).min(axis=0)
    high = (clip.boxes[:, :2] + 0.8 * clip.boxes[:, 2:]).max(axis=0)
    height, width = clip.source.shape[1:3]
    side = int(min(height, width, round(float((high - low).max()))))
    x = int(np.clip(round(float(low[0] + high[0] - side) / 2), 0, width - side))
    y = int(np.clip(round(float(low[1] + high[1] - side) / 2), 0, height - side))
    return x, y, side


def _track(demo: Demo, summary: dict[str, Any]) -> None:
    """The figures beside the training curves, under eval/."""
    from xdub.tracking.tracked_run import TrackedRun

    for model in MODELS:
        values = {f"eval/{key}": value for key, value in summary[model].items()}
        TrackedRun(demo.run, model, demo.run / model).evaluation(demo.recipe.for_phase(model).steps, values)
