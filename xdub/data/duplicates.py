"""Clips of a data set that show the footage of an earlier clip: the parts of its folder ``duplicates``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdub.data.parts import Parts
from xdub.files.storage import Location

DUPLICATE_PARTS = "duplicates"
"""Folder of the parts in a data set."""


@dataclass(frozen=True)
class Copy:
    """The earlier clip that a clip repeats."""

    original: str | None
    """Clip id; None for a clip that repeats none."""
    value: float
    """Share of equal bits of sound where both overlap."""


def read_duplicates(folder: Location) -> dict[str, Copy]:
    """Return clip id -> the clip that it repeats; empty if no search was run."""
    copies: dict[str, Copy] = {}
    for table in duplicate_parts(folder).read_all():
        for row in table.to_pylist():
            copies[row["clip_id"]] = Copy(row["original"], row["value"])
    return copies


def add_duplicates(folder: Location, copies: Sequence[tuple[str, Copy]]) -> None:
    """Append clips as one part."""
    import pyarrow as pa

    parts = duplicate_parts(folder)
    rows = [{"clip_id": clip_id, "original": copy.original, "value": copy.value} for clip_id, copy in copies]
    parts.append(pa.Table.from_pylist(rows, schema=parts.schema))


def duplicate_parts(folder: Location) -> Parts:
    """Return the parts of a data set."""
    import pyarrow as pa

    columns = [("clip_id", pa.string()), ("original", pa.string()), ("value", pa.float64())]
    return Parts(folder / DUPLICATE_PARTS, pa.schema(columns))
