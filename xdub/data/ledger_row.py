"""One row of a ledger, and counts of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Self

STATUSES = ("kept", "rejected", "failed")
"""Possible results of an input. Only a failed input is tried again."""


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """The result of one input, or of one clip of an input."""

    input: str
    """Name of the input, e.g. the path of a video."""
    clip_id: str = ""
    """Id of the clip; empty if the row is about the input as a whole."""
    status: Literal["kept", "rejected", "failed"]
    check: str = ""
    """Name of the check that decided."""
    value: float | None = None
    """Value measured by the check."""
    threshold: float | None = None
    """Bound that the check compares the value with."""
    message: str = ""
    """Reason in words."""
    worker: str = ""
    """Host and process that did the work."""
    seconds: float = 0.0
    """Time spent on the row."""
    scores: dict[str, float] = field(default_factory=dict)
    """All measurements by name, also where another check decided; empty if nothing was measured."""


class Counts(Counter[str]):
    """Number of rows by status; rejected rows count a second time as `rejected:<check>`."""

    @classmethod
    def of(cls, rows: Iterable[LedgerRow]) -> Self:
        """Count rows."""
        counts = cls()
        for row in rows:
            counts.add(row)
        return counts

    def add(self, row: LedgerRow) -> None:
        """Count one more row."""
        self.add_result(row.status, row.check)

    def add_result(self, status: str, check: str) -> None:
        """Count one more row by its status and check."""
        self[status] += 1
        if status == "rejected":
            self[f"rejected:{check}"] += 1

    def reasons(self) -> str:
        """Format the causes of missing results, most frequent first, as ``mouth 3, noise 1, failed 1``."""
        causes = {name.removeprefix("rejected:"): self[name] for name in self if name.startswith("rejected:")}
        causes |= {"failed": self["failed"]} if self["failed"] else {}
        return ", ".join(f"{name} {causes[name]}" for name in sorted(causes, key=lambda name: -causes[name]))

    def __str__(self) -> str:
        """Format as ``12 kept, 3 rejected, 0 failed``."""
        return ", ".join(f"{self[status]} {status}" for status in STATUSES)
