"""Measure how fast training from nothing learns: figures of generator and editor against steps and minutes.

    python -m xdub.demo.learning_curve --demo curve --minutes 60 --out docs/results

The command runs a demo from scratch that keeps its checkpoints (the same command continues it), dubs the demo's
held-out heads with the averaged weights of each checkpoint, and writes learning_curve.json, .png and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xdub.config import Recipe, load_recipe
from xdub.demo.cases import case_folders, load_case
from xdub.demo.facts import hardware, versions
from xdub.demo.layout import MODELS
from xdub.demo.sizes import DemoPlan, default_plan
from xdub.demo.state import FILE
from xdub.errors import UserError
from xdub.evaluate.heldout import HeldOutClip
from xdub.evaluate.metric import combine, measure
from xdub.evaluate.metrics import HELD_OUT
from xdub.evaluate.metrics.opening_corr import OPENING_CORR
from xdub.files.atomic import write_json, write_text
from xdub.files.run_folder import PhaseFolder
from xdub.model.backbone import Backbone
from xdub.report.charts import Series, chart_style, draw_lines, new_figure, save_png
from xdub.report.palette import ROLES

METRICS = tuple(m for m in HELD_OUT if set(m.needs) <= {"opening", "new_opening", "old_opening"})
"""Metrics of the curve: those that are computed from the mouth's opening alone."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Figures of one checkpoint."""

    model: str
    step: int
    minutes: float
    """Minutes of training in this phase."""
    journey_minutes: float
    """Minutes since the first step of the run, pair making included."""
    figures: Mapping[str, float]
    """Metric's name -> value."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields in one flat mapping, for JSON."""
        fields = dataclasses.asdict(self)
        return fields | fields.pop("figures")


def keep_checkpoints(plan: DemoPlan, recipe_steps: dict[str, int], points: int) -> DemoPlan:
    """Return the plan with ``points`` checkpoints in each of the two large phases, all of them kept."""
    settings = [f"phases.{m}.checkpoint_every={max(1, recipe_steps[m] // points)}" for m in MODELS]
    settings += [f"phases.{m}.keep_checkpoints={points + 2}" for m in MODELS]
    return dataclasses.replace(plan, overrides=(*plan.overrides, *settings))


def measure_run(demo: Path, *, cases: int, sampler_steps: int | None = None) -> list[Point]:
    """Measure every checkpoint of a demo's two large phases on its first ``cases`` held-out heads.

    Openings are read from the model's own crops. UserError: the demo has no held-out clips yet.
    """
    record = json.loads((demo / FILE).read_text("utf-8"))
    plan = DemoPlan.from_dict(record["plan"])
    recipe = load_recipe(plan.recipe, [*plan.overrides, f"seed={record['flags']['seed']}"])
    folders = case_folders(demo / "heldout")[:cases]
    if not folders:
        raise UserError(f"{demo} has no held-out clips yet; run the demo to its end first")
    clips = [load_case(folder, folder.name) for folder in folders]
    speech = [folder / "speech.wav" for folder in folders]
    begin = _clock(PhaseFolder(demo / "run", "generator"))[0][1]
    points = []
    for model in MODELS:
        phase = PhaseFolder(demo / "run", model)
        clock = _clock(phase)
        for step in reversed(phase.checkpoint_steps()):
            dit = load_checkpoint(phase.checkpoint(step), model, recipe)
            read = _dub_and_read(dit, recipe, clips, speech, sampler_steps or recipe.dub.sampler_steps)
            kept = [
                measure(METRICS, {"opening": r, "new_opening": c.new_opening, "old_opening": c.old_opening})
                for r, c in zip(read, clips, strict=True)
            ]
            now = _time_at(clock, step)
            point = Point(
                model=model,
                step=step,
                minutes=(now - clock[0][1]) / 60e3,
                journey_minutes=(now - begin) / 60e3,
                figures={name: figure.value for name, figure in combine(METRICS, kept).items()},
            )
            values = "  ".join(f"{name} {value:.3f}" for name, value in point.figures.items())
            print(f"{model:10s} step {step:6d}  {point.minutes:6.1f} min  {values}", flush=True)
            points.append(point)
    return points


def load_checkpoint(folder: Path, model: str, recipe: Recipe) -> Backbone:
    """Load the network with the averaged weights of a checkpoint. UserError: the checkpoint has none."""
    from xdub.model.build import build_backbone
    from xdub.model.codec import load_codec
    from xdub.train.state.pieces import ShardedState

    state = ShardedState(folder)
    if not state.has("ema"):
        raise UserError(f"{folder} has no averaged weights: the curve needs train.ema > 0")
    dit = build_backbone(recipe, model, load_codec(recipe.codec), seed=0)
    for name, parameter in dit.named_parameters():
        state.fill(parameter.data.view(-1), "ema", name, 0)
    return dit.eval().requires_grad_(False)


def _dub_and_read(
    dit: Backbone, recipe: Recipe, clips: Sequence[HeldOutClip], speech: Sequence[Path], steps: int
) -> list[np.ndarray]:
    """Dub each clip's face crop with its new speech and read the mouth's opening [F]."""
    from xdub.data.sound import surrounded
    from xdub.dub.tracks import Track, generate
    from xdub.dub.window_sampler import WindowSampler
    from xdub.evaluate.opening import read_opening
    from xdub.media import read_audio
    from xdub.model.audio_encoder import load_audio_encoder
    from xdub.model.codec import load_codec

    tracks = [
        Track(
            frames=clip.crops(clip.source),
            sound=surrounded(read_audio(path)),
            noise=("learning curve", clip.name),
            hidden=clip.face_mask,
        )
        for clip, path in zip(clips, speech, strict=True)
    ]
    sampler = WindowSampler(
        dit,
        load_codec(recipe.codec),
        load_audio_encoder(recipe.audio),
        num_steps=steps,
        shift=recipe.dub.sampler_shift,
        solver=recipe.dub.solver,
    )
    dubbed = generate(
        tracks, sampler, window=recipe.dub.window, motion=recipe.dub.motion_frames, batch=len(tracks)
    )
    crops = [np.rint(film).astype(np.uint8) for film in dubbed]
    return [read_opening(crop, clip.crop_landmarks) for crop, clip in zip(crops, clips, strict=True)]


def _clock(phase: PhaseFolder) -> list[tuple[int, float]]:
    """Read (step, ms) from the journal, with an estimate of the time of step 0."""
    from xdub.files.lines import read_lines

    marks = [
        (r["step"], float(r["time_ms"]))
        for r in read_lines(phase.journal)
        # Figures that were measured after the training have no step time.
        if r["kind"] == "metrics" and "perf/step_seconds" in r["values"]
    ]
    if len(marks) < 2:
        raise UserError(f"{phase}: too few logged steps for a curve")
    (a, ta), (b, tb) = marks[0], marks[1]
    return [(0, ta - a * (tb - ta) / (b - a)), *marks]


def _time_at(clock: Sequence[tuple[int, float]], step: int) -> float:
    steps, times = zip(*clock, strict=True)
    return float(np.interp(step, steps, times))


def save(points: Sequence[Point], demo: Path, out: Path) -> None:
    """Write OUT/learning_curve.json, .png and .md."""
    record = json.loads((demo / FILE).read_text("utf-8"))
    result: dict[str, Any] = {
        "command": "python -m xdub.demo.learning_curve",
        "points": [point.to_dict() for point in points],
        "flags": record["flags"],
        "plan": record["plan"],
        "hardware": hardware(),
        "versions": versions(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "learning_curve.json", result)
    _plot(points, out / "learning_curve.png")
    write_text(out / "learning_curve.md", markdown(points))


def markdown(points: Sequence[Point]) -> str:
    """Return the figures as a Markdown table."""
    head = ["model", "step", "minutes of training", "since the first step", *(m.name for m in METRICS)]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for point in points:
        times = [f"{point.minutes:.1f}", f"{point.journey_minutes:.1f}"]
        values = [metric.signed(point.figures[metric.name]) for metric in METRICS]
        lines.append(f"| {' | '.join([point.model, str(point.step), *times, *values])} |")
    return "\n".join(lines) + "\n"


def _plot(points: Sequence[Point], path: Path) -> None:
    """Draw the opening correlation over steps and over minutes."""
    with chart_style():
        figure = new_figure(9, 3.6, dpi=130)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, field, label in (
            (left, "step", "steps of the phase"),
            (right, "journey_minutes", "minutes since the first step (2 cores)"),
        ):
            lines = [
                Series(
                    name=model,
                    x=[getattr(p, field) for p in points if p.model == model],
                    y=[p.figures[OPENING_CORR.name] for p in points if p.model == model],
                    colour=ROLES[model],
                    points=True,
                )
                for model in MODELS
            ]
            draw_lines(axes, lines, x_label=label)
        left.set(ylabel="opening correlation, held-out heads", ylim=(-0.2, 1))
        left.legend()
        save_png(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m xdub.demo.learning_curve", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--demo", type=Path, default=Path("curve"), help="folder of the demo from scratch")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="approximate duration of that demo on two cores"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=12, help="checkpoints in each of the two large phases")
    parser.add_argument("--cases", type=int, default=6, help="held-out heads to dub with each checkpoint")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    from xdub.demo.journey import run_demo
    from xdub.runtime_env import prepare_environment

    prepare_environment()
    plan = default_plan(from_scratch=True, minutes=args.minutes)
    recipe = load_recipe(plan.recipe, plan.overrides)
    plan = keep_checkpoints(plan, {m: recipe.for_phase(m).steps for m in MODELS}, args.points)
    run_demo(args.demo, seed=args.seed, from_scratch=True, minutes=args.minutes, plan=plan)
    save(measure_run(args.demo, cases=args.cases), args.demo, args.out)


if __name__ == "__main__":
    main()
