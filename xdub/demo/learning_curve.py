"""How fast it learns from nothing: opening correlation of generator and editor against steps and minutes.

    python -m xdub.demo.learning_curve --demo curve --minutes 60 --out docs/results

runs a demo from scratch that keeps its checkpoints (again to continue), reads the averaged weights of each,
lets them dub the demo's held-out heads, and writes learning_curve.json and learning_curve.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xdub.config import Recipe, load_recipe
from xdub.demo.cases import case_folders, load_case
from xdub.demo.facts import hardware, versions
from xdub.demo.sizes import DemoPlan, default_plan
from xdub.demo.state import FILE
from xdub.errors import UserError
from xdub.evaluate.heldout import HeldOutClip
from xdub.evaluate.metrics import leak_corr, opening_corr
from xdub.files.atomic import atomic_path, write_json, write_text

MODELS = ("generator", "editor")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One checkpoint."""

    model: str
    step: int
    minutes: float
    """Of training in this phase."""
    journey_minutes: float
    """Since the first step of the run, pair making included."""
    opening_corr: float
    leak_corr: float


def keep_checkpoints(plan: DemoPlan, recipe_steps: dict[str, int], points: int) -> DemoPlan:
    """The plan with ``points`` checkpoints in each of the two large phases, all of them kept."""
    settings = [f"phases.{m}.checkpoint_every={max(1, recipe_steps[m] // points)}" for m in MODELS]
    settings += [f"phases.{m}.keep_checkpoints={points + 2}" for m in MODELS]
    return dataclasses.replace(plan, overrides=(*plan.overrides, *settings))


def measure_run(demo: Path, *, cases: int, sampler_steps: int | None = None) -> list[Point]:
    """Every checkpoint of a demo's two large phases on its first ``cases`` held-out heads, on the model's own
    crops.
    """
    record = json.loads((demo / FILE).read_text("utf-8"))
    plan = DemoPlan.from_dict(record["plan"])
    recipe = load_recipe(plan.recipe, [*plan.overrides, f"seed={record['flags']['seed']}"])
    folders = case_folders(demo / "heldout")[:cases]
    if not folders:
        raise UserError(f"{demo} has no held-out clips yet; run the demo to its end first")
    clips = [load_case(folder, folder.name) for folder in folders]
    speech = [folder / "speech.wav" for folder in folders]
    begin = _clock(demo / "run" / "generator")[0][1]
    points = []
    for model in MODELS:
        clock = _clock(demo / "run" / model)
        for folder in sorted((demo / "run" / model / "checkpoints").glob("step????????")):
            step = int(folder.name.removeprefix("step"))
            dit = load_checkpoint(folder, model, recipe)
            read = _dub_and_read(dit, recipe, clips, speech, sampler_steps or recipe.dub.sampler_steps)
            new, old = [c.new_opening for c in clips], [c.old_opening for c in clips]
            now = _time_at(clock, step)
            point = Point(
                model=model,
                step=step,
                minutes=(now - clock[0][1]) / 60e3,
                journey_minutes=(now - begin) / 60e3,
                opening_corr=opening_corr(read, new).mean,
                leak_corr=leak_corr(read, old, new).unique,
            )
            what = f"{model:10s} step {step:6d}  {point.minutes:6.1f} min"
            print(f"{what}  opening_corr {point.opening_corr:.3f}", flush=True)
            points.append(point)
    return points


def load_checkpoint(folder: Path, model: str, recipe: Recipe) -> torch.nn.Module:
    """The network with the averaged weights of a checkpoint."""
    from xdub.model.build import build_dit
    from xdub.model.codec import load_codec
    from xdub.train.state.pieces import ShardedState

    state = ShardedState(folder)
    if not state.has("ema"):
        raise UserError(f"{folder} has no averaged weights: the curve needs train.ema > 0")
    dit = build_dit(recipe, model, load_codec(recipe.codec), seed=0)
    for name, parameter in dit.named_parameters():
        state.fill(parameter.data.view(-1), "ema", name, 0)
    return dit.eval().requires_grad_(False)


def _dub_and_read(
    dit: torch.nn.Module, recipe: Recipe, clips: Sequence[HeldOutClip], speech: Sequence[Path], steps: int
) -> list[np.ndarray]:
    """Readings [F] of each clip's face crop dubbed with its new speech."""
    from xdub.dub.tracks import Track, generate
    from xdub.dub.window_sampler import WindowSampler
    from xdub.evaluate.opening import read_opening
    from xdub.media import read_audio
    from xdub.model.audio_encoder import load_audio_encoder
    from xdub.model.codec import load_codec

    encoder = load_audio_encoder(recipe.audio)
    tracks = [
        Track(
            frames=clip.crops(clip.source),
            features=encoder.encode(read_audio(path)),
            noise=("learning curve", clip.name),
            hidden=clip.face_mask,
        )
        for clip, path in zip(clips, speech, strict=True)
    ]
    settings = {"shift": recipe.dub.sampler_shift, "solver": recipe.dub.solver}
    sampler = WindowSampler(dit, load_codec(recipe.codec), num_steps=steps, **settings)
    dubbed = generate(
        tracks, sampler, window=recipe.dub.window, motion=recipe.dub.motion_frames, batch=len(tracks)
    )
    crops = [np.rint(film).astype(np.uint8) for film in dubbed]
    return [read_opening(crop, clip.crop_landmarks) for crop, clip in zip(crops, clips, strict=True)]


def _clock(phase: Path) -> list[tuple[int, float]]:
    """(step, ms) of the journal, with an estimate of when step 0 was."""
    from xdub.files.lines import read_lines

    marks = [
        (r["step"], float(r["time_ms"]))
        for r in read_lines(phase / "journal.jsonl")
        if r["kind"] == "metrics" and "perf/step_seconds" in r["values"]  # not what was measured afterwards
    ]
    if len(marks) < 2:
        raise UserError(f"{phase}: too few logged steps for a curve")
    (a, ta), (b, tb) = marks[0], marks[1]
    return [(0, ta - a * (tb - ta) / (b - a)), *marks]


def _time_at(clock: Sequence[tuple[int, float]], step: int) -> float:
    steps, times = zip(*clock, strict=True)
    return float(np.interp(step, steps, times))


def save(points: Sequence[Point], demo: Path, out: Path) -> None:
    """OUT/learning_curve.json, .png and .md."""
    record = json.loads((demo / FILE).read_text("utf-8"))
    told: dict[str, Any] = {
        "command": "python -m xdub.demo.learning_curve",
        "points": [dataclasses.asdict(p) for p in points],
        "flags": record["flags"],
        "plan": record["plan"],
        "hardware": hardware(),
        "versions": versions(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "learning_curve.json", told)
    with atomic_path(out / "learning_curve.png") as temporary:
        _plot(points, temporary)
    write_text(out / "learning_curve.md", markdown(points))


def markdown(points: Sequence[Point]) -> str:
    """The same figures as a table."""
    lines = ["| model | step | minutes of training | since the first step | opening_corr | leak_corr |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for p in points:
        numbers = f"{p.minutes:.1f} | {p.journey_minutes:.1f} | {p.opening_corr:.3f} | {p.leak_corr:+.3f}"
        lines.append(f"| {p.model} | {p.step} | {numbers} |")
    return "\n".join(lines) + "\n"


def _plot(points: Sequence[Point], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for model, colour in zip(MODELS, ("#d9730d", "#3457d5"), strict=True):
        mine = [p for p in points if p.model == model]
        for one, x in zip(axes, ("step", "journey_minutes"), strict=True):
            values = [p.opening_corr for p in mine]
            one.plot([getattr(p, x) for p in mine], values, "o-", color=colour, label=model, markersize=4)
    axes[0].set(xlabel="steps of the phase", ylabel="opening correlation, held-out heads", ylim=(-0.2, 1))
    axes[1].set(xlabel="minutes since the first step (2 cores)")
    for one in axes:
        one.axhline(0, color="#999", linewidth=0.8)
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.2)
    axes[0].legend(frameon=False)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m xdub.demo.learning_curve", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--demo", type=Path, default=Path("curve"), help="folder of the demo from scratch")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="about how long that demo may take on two cores"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=12, help="checkpoints in each of the two large phases")
    parser.add_argument("--cases", type=int, default=6, help="held-out heads to dub with each")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    told = parser.parse_args(arguments)
    from xdub.demo.journey import run_demo
    from xdub.runtime_env import prepare_environment

    prepare_environment()
    plan = default_plan(from_scratch=True, minutes=told.minutes)
    recipe = load_recipe(plan.recipe, plan.overrides)
    plan = keep_checkpoints(plan, {m: recipe.for_phase(m).steps for m in MODELS}, told.points)
    run_demo(told.demo, seed=told.seed, from_scratch=True, minutes=told.minutes, plan=plan)
    save(measure_run(told.demo, cases=told.cases), told.demo, told.out)


if __name__ == "__main__":
    main()
