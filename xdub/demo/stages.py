"""The stages of the demo in order.

Each stage writes files in OUT. A stage that runs again after a kill only does the missing work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xdub.bootstrap import Stage, bootstrap_stages
from xdub.config import SHIPPED_MODEL
from xdub.demo.layout import MODELS, Demo
from xdub.progress import Report


@dataclass(frozen=True, kw_only=True)
class DemoStage:
    """One stage of the demo."""

    name: str
    """Key in demo.json and summary.json."""
    title: str
    """Name on the terminal."""
    run: Callable[[Report], dict[str, Any] | None]
    """Do the missing work of the stage; the returned values are kept in demo.json."""


def demo_stages(demo: Demo) -> list[DemoStage]:
    """Return all stages in order."""
    from xdub.demo.assess import evaluate, write_report
    from xdub.demo.dubbing import dub_cases

    start = None if demo.from_scratch else SHIPPED_MODEL
    stages = [
        DemoStage(name="render", title="Render talking heads", run=lambda report: _render(demo, report)),
        DemoStage(name="held-out", title="Render heads to test on", run=lambda report: _cases(demo, report)),
    ]
    for stage in bootstrap_stages(
        demo.recipe,
        demo.data,
        demo.run,
        init=start,
        local=demo.plan.local,
        pair_workers=min(demo.plan.pair_workers, len(os.sched_getaffinity(0))),
    ):
        stages.append(DemoStage(name=stage.name, title=_capital(stage), run=stage.run))
    for model in MODELS:
        stages.append(
            DemoStage(
                name=f"dub {model}",
                title=f"Dub the test heads with the {model}",
                run=lambda report, model=model: dub_cases(demo, model, report),
            )
        )
    stages.append(DemoStage(name="evaluate", title="Measure", run=lambda report: evaluate(demo, report)))
    stages.append(
        DemoStage(name="report", title="Write the report", run=lambda report: write_report(demo, report))
    )
    return stages


def _capital(stage: Stage) -> str:
    return stage.title[0].upper() + stage.title[1:]


def _render(demo: Demo, report: Report) -> dict[str, Any]:
    from xdub.render.dataset import render_dataset

    rendered = render_dataset(
        demo.recipe,
        demo.data,
        clips=demo.plan.clips,
        seed=demo.render_seed,
        full_size=demo.plan.full_size,
        on_progress=lambda done, total=None, text="": report(done, total, text or "clips and their twins"),
    )
    return {"rows": rendered.kept}


def _cases(demo: Demo, report: Report) -> dict[str, Any]:
    from xdub.demo.cases import render_cases

    plan = demo.plan
    render_cases(
        demo.cases,
        demo.recipe,
        seed=demo.render_seed,
        count=plan.heldout,
        frames=plan.heldout_frames,
        full_size=plan.full_size,
        report=report,
    )
    return {"cases": plan.heldout}
