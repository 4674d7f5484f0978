"""The examination: files and machine first, then every network, then every stage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xdub.config import DUB, PAIRS, Recipe
from xdub.doctor.rows import Examiner, Row, row_of
from xdub.headers import inspect_networks
from xdub.precision import open_device


def examine(
    recipe: Recipe,
    *,
    quick: bool = False,
    size: int | None = None,
    frames: int | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> tuple[list[Row], dict[str, Any]]:
    """Return a row for every check, and facts about the examination.

    Args:
        quick: read headers of files only.
        size: side of the pictures, px; default: the recipe's on a GPU, about 64 on a CPU.
        frames: longest window; default: the recipe's on a GPU, the shortest that exercises all losses on a CPU.
        on_row: called with every finished row.
    """
    device = open_device()
    examiner, failed = Examiner(device, on_row), set[str]()
    for finding in inspect_networks(recipe, (*recipe.phase_names, PAIRS, DUB)):
        examiner.add(row_of(finding))
        if finding.problem is not None:
            failed.add(finding.role)
    facts: dict[str, Any] = {"recipe": recipe.name, "quick": quick, "device": device.type}
    if quick:
        return examiner.rows, facts
    from xdub.doctor.machine import check_machine
    from xdub.doctor.networks import NetworkChecks
    from xdub.doctor.rehearsal import plan_rehearsal
    from xdub.doctor.stages import StageChecks

    rehearsal = plan_rehearsal(recipe, device, size=size, frames=frames)
    facts |= {"size": rehearsal.small.video.size, "frames": rehearsal.frames}
    facts |= {"layers": rehearsal.small.model.num_layers, "width": rehearsal.small.model.hidden_size}
    if "identity" in failed or "face" in failed:
        failed.add("judges")
    with tempfile.TemporaryDirectory(prefix="xdub-doctor-") as scratch:
        folder = Path(scratch)
        check_machine(examiner, recipe, folder)
        NetworkChecks(rehearsal, examiner, failed).run()
        StageChecks(rehearsal, examiner, failed, folder).run()
    return examiner.rows, facts
