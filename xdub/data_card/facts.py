"""Figures of a data set, read from its manifest and its ledger in one pass, whose memory does not grow with both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from xdub.data.ledger_row import Counts, LedgerRow
from xdub.data.manifest import Manifest
from xdub.data.stage_clock import CORES, FOOTAGE, SECONDS
from xdub.geometry import FPS

SAMPLE = 20_000
"""Most values of a check that are kept for its chart; a larger set is drawn from evenly."""
EXAMPLES = 3
"""Messages that are kept for a reason."""
BOUNDS = (".least", ".most")
"""Endings of the scores that are bounds of others."""


@dataclass
class CheckValues:
    """Values of one check."""

    kept: list[float] = field(default_factory=list)
    """Values of kept clips; at most `SAMPLE`."""
    rejected: list[float] = field(default_factory=list)
    """Values of clips that any check rejected; at most `SAMPLE`."""
    count: int = 0
    """Number of all values."""
    least: float | None = None
    """Smallest value that passes."""
    most: float | None = None
    """Largest value that passes."""

    def add(self, value: float, *, kept: bool, rng: np.random.Generator) -> None:
        """Add a value; each value of a large set remains with the same chance."""
        values = self.kept if kept else self.rejected
        self.count += 1
        if len(values) < SAMPLE:
            values.append(value)
        elif (index := int(rng.integers(self.count))) < SAMPLE:
            values[index] = value


@dataclass
class LedgerFacts:
    """Figures of a ledger."""

    counts: Counts = field(default_factory=Counts)
    """Rows by status and check."""
    checks: dict[str, CheckValues] = field(default_factory=dict)
    """Values of each check, and of each check that rejected by its row's value alone."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """A few messages of each reason."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of workers by stage."""
    cores: dict[str, float] = field(default_factory=dict)
    """Seconds that cores worked, by stage."""
    footage: float = 0.0
    """Seconds of footage in the sources whose stages were recorded."""
    work: float = 0.0
    """Seconds of workers for all rows."""


def read_ledger(rows: Iterable[LedgerRow]) -> LedgerFacts:
    """Read the rows of a ledger once."""
    facts, rng = LedgerFacts(), np.random.default_rng(0)
    for row in rows:
        facts.counts.add(row)
        facts.work += row.seconds
        kept = row.status == "kept"
        if not kept:
            reason = row.check if row.status == "rejected" else "failed"
            examples = facts.examples.setdefault(reason, [])
            if row.message and row.message not in examples and len(examples) < EXAMPLES:
                examples.append(row.message)
        facts.footage += row.scores.get(FOOTAGE, 0.0)
        for name, value in row.scores.items():
            for prefix, totals in ((SECONDS, facts.seconds), (CORES, facts.cores)):
                if name.startswith(prefix):
                    stage = name.removeprefix(prefix)
                    totals[stage] = totals.get(stage, 0.0) + value
            if name == FOOTAGE or name.startswith((SECONDS, CORES)) or name.endswith(BOUNDS):
                continue
            if np.isfinite(value):
                check = facts.checks.setdefault(name, CheckValues())
                check.add(value, kept=kept, rng=rng)
                check.least = row.scores.get(f"{name}.least", check.least)
                check.most = row.scores.get(f"{name}.most", check.most)
    return facts


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """Figures of a manifest."""

    kind: str
    clips: int
    hours: float
    speakers: int
    shards: int
    bytes: int
    seconds: np.ndarray
    """float64 [N], length of every clip."""
    hours_of_speaker: np.ndarray
    """float64 [speakers], descending."""


def read_set(manifest: Manifest, speakers: Iterable[str]) -> SetFacts:
    """Return the figures of a manifest; ``speakers`` are those of its rows."""
    seconds = np.asarray(list(manifest.num_frames), np.float64) / FPS
    codes: dict[str, int] = {}
    numbers = np.array([codes.setdefault(speaker, len(codes)) for speaker in speakers], np.int64)
    hours = np.bincount(numbers, seconds, minlength=len(codes)) / 3600
    return SetFacts(
        kind=manifest.kind,
        clips=len(seconds),
        hours=float(seconds.sum()) / 3600,
        speakers=len(codes),
        shards=len(manifest.shards),
        bytes=manifest.bytes,
        seconds=seconds,
        hours_of_speaker=np.sort(hours)[::-1],
    )
