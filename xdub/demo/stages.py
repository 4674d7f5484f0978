"""The stages of the demo. Each leaves files in OUT and, called again after a kill, goes on from what is
there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.bootstrap import Stage, bootstrap_stages
from xdub.config import SHIPPED_MODEL, Recipe
from xdub.demo.sizes import DemoPlan
from xdub.seeding import stable_seed

Report = Callable[..., None]
"""`report(done, total, text="")`"""
MODELS = ("generator", "editor")


@dataclass(frozen=True, kw_only=True)
class DemoStage:
    """One line of the journey."""

    name: str
    title: str
    run: Callable[[Report], dict[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What every stage needs to know, and where everything lies."""

    out: Path
    plan: DemoPlan
    recipe: Recipe
    seed: int
    from_scratch: bool

    @property
    def render_seed(self) -> int:
        """Decides the demo's people and sentences: others than those the shipped weights were trained on."""
        return stable_seed("demo", self.seed) % 2**31

    @property
    def data(self) -> Path:
        return self.out / "data"

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def cases(self) -> Path:
        return self.out / "heldout"

    @property
    def evaluation(self) -> Path:
        return self.out / "evaluation"


def demo_stages(demo: Demo) -> list[DemoStage]:
    """All of them, in order."""
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
        stages.append(DemoStage(name=stage.name, title=_capital(stage), run=_plain(stage)))
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


def _plain(stage: Stage) -> Callable[[Report], None]:
    return lambda report: stage.run(report)


def _render(demo: Demo, report: Report) -> dict[str, Any]:
    from xdub.render.dataset import render_dataset

    made = render_dataset(
        demo.recipe,
        demo.data,
        clips=demo.plan.clips,
        seed=demo.render_seed,
        full_size=demo.plan.full_size,
        on_progress=lambda done, total, text="": report(done, total, text or "clips and their twins"),
    )
    return {"rows": made.kept}


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


def copy_whole(source: Path, target: Path) -> None:
    """The target appears at once."""
    from xdub.files.atomic import atomic_path

    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
