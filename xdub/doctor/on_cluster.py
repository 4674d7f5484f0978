"""The examination on a worker of the Ray cluster, because the head that runs a job has no GPU."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from xdub.config import Recipe
from xdub.doctor.examine import Sizes, examine
from xdub.doctor.rows import QUIET, Examiner, Progress, Row
from xdub.ray_machines import resource_list, run_on_worker
from xdub.runtime_env import on_a_cluster
from xdub.train.supervise.cluster import capacity, check_resources, per_worker


def examine_anywhere(
    recipe: Recipe, sizes: Sizes, progress: Progress = QUIET
) -> tuple[list[Row], dict[str, Any]]:
    """Examine a recipe on a worker of the cluster in a job or with RAY_ADDRESS, else on this machine.

    The first row counts the workers that fit. Nothing else is examined on a cluster without room for one worker.
    """
    if not on_a_cluster():
        return examine(recipe, sizes, progress)
    examiner = Examiner(torch.device("cpu"), progress)
    examiner.part = "cluster"
    enough = examiner.check("ray", lambda: _count_workers(recipe))
    facts: dict[str, Any] = {"recipe": recipe.name, "quick": sizes.quick}
    if not enough and not capacity(recipe.train):
        return examiner.rows, facts
    needs = per_worker(recipe.train)
    progress.begin(f"worker with {resource_list(needs)}")
    rows, facts = run_on_worker("doctor", needs, examine, recipe, sizes)
    for row in rows:
        progress.end(row)
    # The driver's memory says nothing about the workers.
    ray = [replace(row, peak_gb=None) for row in examiner.rows]
    return [*ray, *rows], facts


def _count_workers(recipe: Recipe) -> str:
    """Return words for the cluster's room. Raise UserError if too few workers fit."""
    check_resources(recipe.train)
    room, workers = capacity(recipe.train), recipe.train.workers
    later = "" if room >= workers else f", {workers} after the autoscaler has started machines"
    return f"Ray {version('ray')}: room for {room} workers{later}"
