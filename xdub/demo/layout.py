"""One demo: its settings, and where its files are in OUT.

OUT/data         training clips          OUT/heldout      held-out cases
OUT/run          training run            OUT/dubbed       the cases dubbed by each model
OUT/evaluation   arrays of all figures   OUT/report.html, summary.json, dubbed.mp4, mlflow.db
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe
from xdub.demo.sizes import DemoPlan
from xdub.evaluate.targets import MODELS as MODELS
from xdub.evaluate.targets import Model as Model
from xdub.files.atomic import atomic_path
from xdub.seeding import stable_seed


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Settings of one demo and the paths of its files."""

    out: Path
    plan: DemoPlan
    recipe: Recipe
    seed: int
    from_scratch: bool
    """True: training starts from random weights instead of the shipped ones."""

    @property
    def render_seed(self) -> int:
        """Seed of the demo's people and sentences; they differ from those the shipped weights were trained on."""
        return stable_seed("demo", self.seed) % 2**31

    @property
    def data(self) -> Path:
        """Folder of the rendered training clips."""
        return self.out / "data"

    @property
    def run(self) -> Path:
        """Folder of the training run."""
        return self.out / "run"

    @property
    def cases(self) -> Path:
        """Folder of the held-out cases."""
        return self.out / "heldout"

    @property
    def evaluation(self) -> Path:
        """Folder of the arrays behind the figures."""
        return self.out / "evaluation"

    def dubbed(self, model: Model, case: Path) -> Path:
        """Video of a case with its new speech."""
        return dubbed_file(self.out, model, case.name)

    def silent(self, model: Model, case: Path) -> Path:
        """Video of a case dubbed with silence."""
        return self.out / "dubbed" / model / f"{case.name}.silence.mp4"

    def raw(self, model: Model, case: Path) -> Path:
        """Crops of a case before they were pasted back (npz)."""
        return self.dubbed(model, case).with_suffix(".npz")


def dubbed_file(out: Path, model: Model, case: str) -> Path:
    """Return the path of a dubbed case in the demo folder ``out``."""
    return out / "dubbed" / model / f"{case}.mp4"


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that ``target`` appears complete or not at all."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
