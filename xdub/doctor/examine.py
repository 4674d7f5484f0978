"""The examination: the files of all networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdub.config import Recipe
from xdub.doctor.rows import Row, row_of
from xdub.headers import inspect_networks
from xdub.headers.check import DUB, PAIRS


def examine(
    recipe: Recipe, *, quick: bool = False, on_row: Callable[[Row], None] = lambda row: None
) -> tuple[list[Row], dict[str, Any]]:
    """Return a row for every check, and facts about the examination.

    ``quick``: read headers only. ``on_row`` is called with every finished row.
    """
    rows = [row_of(finding) for finding in inspect_networks(recipe, (*recipe.phase_names, PAIRS, DUB))]
    for row in rows:
        on_row(row)
    return rows, {"recipe": recipe.name, "quick": quick}
