"""The examination: files and machine first, then every network, then every stage."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.config import DUB, PAIRS, Recipe
from xdub.doctor.rows import QUIET, Examiner, Progress, Row, row_of
from xdub.headers import inspect_networks
from xdub.heap import frozen_heap
from xdub.precision import open_device


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Extent of an examination."""

    quick: bool = False
    """Read headers of files only."""
    size: int | None = None
    """Side of the pictures, px. None: the recipe's on a GPU, about 64 on a CPU."""
    frames: int | None = None
    """Longest window. None: the recipe's on a GPU, the shortest that exercises all losses on a CPU."""


def examine(recipe: Recipe, sizes: Sizes, progress: Progress = QUIET) -> tuple[list[Row], dict[str, Any]]:
    """Return a row for every check, and facts about the examination."""
    device = open_device()
    examiner, failed = Examiner(device, progress), set[str]()
    for finding in inspect_networks(recipe, (*recipe.phase_names, PAIRS, DUB)):
        examiner.add(row_of(finding))
        if finding.problem is not None:
            failed.add(finding.role)
    facts: dict[str, Any] = {"recipe": recipe.name, "quick": sizes.quick, "device": device.type}
    if sizes.quick:
        return examiner.rows, facts
    from xdub.doctor.machine import check_machine
    from xdub.doctor.networks import NetworkChecks
    from xdub.doctor.rehearsal import plan_rehearsal
    from xdub.doctor.stages import StageChecks

    if "identity" in failed or "face" in failed:
        failed.add("judges")
    with tempfile.TemporaryDirectory(prefix="xdub-doctor-") as scratch:
        folder = Path(scratch)
        rehearsal = plan_rehearsal(recipe, device, folder, size=sizes.size, frames=sizes.frames)
        facts |= {"size": rehearsal.small.video.size, "frames": rehearsal.frames}
        facts |= {"layers": rehearsal.small.model.num_layers, "width": rehearsal.small.model.hidden_size}
        check_machine(examiner, recipe, folder)
        # Every check begins with a full garbage collection, and the heavy modules are loaded by now.
        with frozen_heap():
            NetworkChecks(rehearsal, examiner, failed).run()
            StageChecks(rehearsal, examiner, failed, folder).run()
    return examiner.rows, facts
