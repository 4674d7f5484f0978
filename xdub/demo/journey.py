"""Run the whole demo on this machine (`xdub demo`); it can be restarted at any point."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape

from xdub.config import load_recipe
from xdub.demo.assess import finish
from xdub.demo.facts import hardware, versions
from xdub.demo.layout import MODELS, Demo
from xdub.demo.meter import Meter
from xdub.demo.show import Show
from xdub.demo.sizes import DemoPlan, default_plan
from xdub.demo.stages import demo_stages
from xdub.demo.state import DemoState
from xdub.evaluate.targets import CEILINGS
from xdub.files.run_folder import RunFolder
from xdub.tracking.store import sqlite_uri


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    from_scratch: bool = False,
    minutes: float | None = None,
    plan: DemoPlan | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Render, train, make pairs, train on them, dub, measure and report; return the content of OUT/summary.json.

    The same call continues a killed demo. For a finished demo it only shows the figures.

    Args:
        out: new or empty folder, or that of a demo to continue. It ends with report.html, summary.json, dubbed.mp4 and
            mlflow.db.
        seed: seed of people, sentences, weights and noise.
        from_scratch: train from random weights instead of the shipped ones.
        minutes: approximate duration of the demo on two cores; None: 12, or 20 from scratch.
        plan: sizes and steps that replace those that follow from ``minutes``.
        show: output of the stages and figures; None: the terminal.

    Raises:
        UserError: the demo in OUT began with other arguments, OUT holds something else, or the disk is full.
    """
    flags = {"seed": seed, "from_scratch": from_scratch, "minutes": minutes}
    plan = plan or default_plan(from_scratch=from_scratch, minutes=minutes)
    show = show or Show()
    with DemoState.open(Path(out).resolve(), flags=flags, plan=plan.to_dict()) as state:
        plan = DemoPlan.from_dict(state.plan)
        recipe = load_recipe(plan.recipe, [*plan.overrides, f"seed={seed}"])
        demo = Demo(out=state.out, plan=plan, recipe=recipe, seed=seed, from_scratch=from_scratch)
        with _own_tracking(state.out), _metered(state) as meter:
            _run_stages(demo, state, show)
            summary = _summary(demo, state, meter)
            command = finish(demo, summary)
    show.figures(summary)
    show.line(f"  report  [bold]{escape(str(state.out / 'report.html'))}[/bold]")
    show.line("  compare the training runs:")
    # Printed without wrapping because a wrapped address cannot be copied.
    print(command)
    return summary


def _run_stages(demo: Demo, state: DemoState, show: Show) -> None:
    stages = demo_stages(demo)
    expected = demo.plan.expected or {}
    for number, stage in enumerate(stages, start=1):
        if state.done(stage.name):
            show.finished(number, len(stages), stage.title, state.seconds()[stage.name])
            continue
        following = stages[number].title if number < len(stages) else ""
        shown = show.stage(number, len(stages), stage.title, expected.get(stage.name), following)
        with state.running(stage.name), shown as report:
            result = stage.run(report)
        state.finish(stage.name, result)


def _summary(demo: Demo, state: DemoState, meter: Meter) -> dict[str, Any]:
    """Collect all fields of summary.json."""
    measured = state.result("evaluate")
    first = {name: measured[name] for name in (*CEILINGS, *MODELS)}
    return {
        **first,
        "seed": demo.seed,
        "warm_start": not demo.from_scratch,
        "seconds": state.seconds(),
        "peak_gb": round(meter.peak_gb, 3),
        "peak_rss_gb": round(meter.peak_rss_gb, 3),
        "versions": versions(),
        "hardware": hardware(),
        "evaluated": measured["evaluated"],
        "details": measured["details"],
        "plan": demo.plan.to_dict(),
    }


@contextmanager
def _metered(state: DemoState) -> Iterator[Meter]:
    """Measure the memory peak; it counts all attempts."""
    before = (state.record.get("peak_gb", 0.0), state.record.get("peak_rss_gb", 0.0))
    with Meter(peak_gb=before[0], peak_rss_gb=before[1]) as meter:
        meter.on_peak = lambda: state.note(peak_gb=meter.peak_gb, peak_rss_gb=meter.peak_rss_gb)
        yield meter


@contextmanager
def _own_tracking(out: Path) -> Iterator[None]:
    """Track the demo's runs in OUT/mlflow.db, wherever the user's other runs are tracked."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = sqlite_uri(RunFolder(out).database)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before
