"""Measure the dubbed files, and write the summary and the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xdub.demo.cases import case_folders, load_case
from xdub.demo.dubbing import raw_crops
from xdub.demo.layout import MODELS, Demo, copy_whole
from xdub.demo.report_data import ClipView, ReportData
from xdub.demo.report_page import build_report
from xdub.evaluate.heldout import HeldOutClip, Readings, dub_inputs, read_clip, summarise
from xdub.evaluate.metric import measure
from xdub.evaluate.metrics import HELD_OUT, pearson
from xdub.files.atomic import atomic_path, write_text
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.media import read_frames
from xdub.progress import Report
from xdub.tracking.read import read_runs, ui_command

SHOWN = 3
"""Number of clips with pictures in the report: the first ones, not the best ones."""


def evaluate(demo: Demo, report: Report) -> dict[str, Any]:
    """Measure every dubbed case, write the arrays to OUT/evaluation, and return the fields of the summary."""
    from xdub.evaluate.opening import read_opening, round_trip
    from xdub.model.codec import load_codec

    codec = load_codec(demo.recipe.codec)
    folders = case_folders(demo.cases)
    readings: list[Readings] = []
    dubs: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
    arrays: dict[str, np.ndarray] = {}
    for number, folder in enumerate(folders):
        report(number, len(folders), "clips measured")
        clip = load_case(folder, f"Held-out clip {number + 1}")
        readings.append(read_clip(clip, read_opening, lambda crops: round_trip(crops, codec)))
        arrays |= {f"{number}_{key}": value for key, value in vars(readings[-1]).items()}
        for model in MODELS:
            video = read_frames(demo.dubbed(model, folder))
            silent_path = demo.silent(model, folder)
            silent = read_frames(silent_path) if silent_path.is_file() else None
            raw = raw_crops(demo, model, folder)
            inputs = dub_inputs(clip, video, raw, readings[-1], read_opening, silent)
            dubs[model].append(measure(HELD_OUT, inputs))
            series = {key: value for key, value in dubs[model][-1].items() if isinstance(value, np.ndarray)}
            series["read"] = inputs["reading"]
            arrays |= {f"{number}_{model}_{key}": value for key, value in series.items()}
    demo.evaluation.mkdir(exist_ok=True)
    with atomic_path(demo.evaluation / "arrays.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    report(len(folders), len(folders), "clips measured")
    summary = summarise(readings, dubs)
    _track(demo, summary)
    counts = {
        "clips": len(readings),
        "frames": sum(len(r.new) for r in readings),
        "silent": sum(demo.silent("editor", folder).is_file() for folder in folders),
    }
    return {**summary, "evaluated": counts}


def write_report(demo: Demo, report: Report) -> dict[str, Any]:
    """Write OUT/dubbed.mp4. `finish` writes the page, because the page shows the time of this stage, too."""
    copy_whole(demo.dubbed("editor", case_folders(demo.cases)[0]), demo.out / "dubbed.mp4")
    report(1, 1, "dubbed.mp4")
    return {}


def finish(demo: Demo, summary: dict[str, Any]) -> str:
    """Write summary.json and report.html; return the command that opens MLflow's page."""
    command = ui_command(read_runs([str(demo.run)]))
    write_text(demo.out / "summary.json", json.dumps(_nan_to_null(summary), indent=1, allow_nan=False))
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


def _nan_to_null(value: Any) -> Any:
    """Replace numbers that JSON cannot express by None."""
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_to_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_losses(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return phase -> (steps, losses) of all committed steps."""
    from xdub.config import PHASES
    from xdub.files.lines import read_lines

    losses = {}
    for phase in PHASES:
        records = list(read_lines(PhaseFolder(run, phase).steps))
        if records:
            losses[phase] = ([r["step"] for r in records], [float.fromhex(r["loss"]) for r in records])
    return losses


def _view(demo: Demo, folder: Path, number: int, arrays: Mapping[str, np.ndarray]) -> ClipView:
    clip = load_case(folder, f"Held-out clip {number + 1}")
    frames = {"source": clip.source}
    frames |= {model: read_frames(demo.dubbed(model, folder)) for model in MODELS}
    frames |= {"truth": clip.truth}
    x, y, side = close_up(clip)
    openings = {"truth": arrays[f"{number}_new"], "old": arrays[f"{number}_old"]}
    openings |= {model: arrays[f"{number}_{model}_read"] for model in MODELS}
    return ClipView(
        name=clip.name,
        frames={name: film[:, y : y + side, x : x + side] for name, film in frames.items()},
        landmarks=clip.landmarks - np.array([x, y], np.float32),
        openings=openings,
        correlations={model: pearson(openings[model], openings["truth"]) for model in MODELS},
    )


def close_up(clip: HeldOutClip) -> tuple[int, int, int]:
    """Return x, y, side in px of one square around the head in all frames, so that strips show faces large."""
    low = (clip.boxes[:, :2] - 0.8 * clip.boxes[:, 2:]).min(axis=0)
    high = (clip.boxes[:, :2] + 0.8 * clip.boxes[:, 2:]).max(axis=0)
    height, width = clip.source.shape[1:3]
    side = int(min(height, width, round(float((high - low).max()))))
    x = int(np.clip(round(float(low[0] + high[0] - side) / 2), 0, width - side))
    y = int(np.clip(round(float(low[1] + high[1] - side) / 2), 0, height - side))
    return x, y, side


def _track(demo: Demo, summary: Mapping[str, Any]) -> None:
    """Log the figures under eval/, in the tracked runs of the training."""
    from xdub.tracking.stage_tracker import StageTracker

    run = RunFolder(demo.run)
    for model in MODELS:
        values = {f"eval/{key}": value for key, value in summary[model].items()}
        tracker = StageTracker(run, model, run.phase(model))
        tracker.evaluation(demo.recipe.for_phase(model).steps, values)
