"""The examination: files and machine first, then every network, then every stage."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xdub.config import DUB, PAIRS, PREPARE, SPEAKERS, Recipe, needs_pairs
from xdub.data.latent_cache.folder import required_caches
from xdub.data.manifest import read_manifest
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
    data: tuple[str, ...] = ()
    """Data sets whose cached latents are checked."""


def examine(recipe: Recipe, sizes: Sizes, progress: Progress = QUIET) -> tuple[list[Row], dict[str, Any]]:
    """Return a row for every check, and facts about the examination."""
    device = open_device()
    examiner, failed = Examiner(device, progress), set[str]()
    for finding in inspect_networks(recipe, (PREPARE, SPEAKERS, *recipe.phase_names, PAIRS, DUB)):
        examiner.add(row_of(finding))
        if finding.problem is not None:
            failed.add(finding.role)
    examiner.part = "files"
    for data in sizes.data:
        examiner.check(f"latents of {data}", partial(check_latents, recipe, data))
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


def check_latents(recipe: Recipe, data: str) -> str:
    """Return words for the cached latents of a data set. Raise UserError if a phase lacks any."""
    kind = read_manifest(data).kind
    phases = [name for name in recipe.phase_names if needs_pairs(name) == (kind == "pairs")]
    words = []
    for name in phases:
        for folder in required_caches(recipe, name, [data]):
            sizes = folder.sizes().values()
            words.append(f"{name}: {sum(sizes) / 1e9:.2f} GB in {folder}")
    return "; ".join(words) or f"no phase that trains on {kind} reads cached latents"
