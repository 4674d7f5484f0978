"""The result of a unit, which a worker sends to the driver: facts about its shards, and ledger rows, never pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdub.data.ledger import LedgerRow
from xdub.data.shard_files import ShardFacts


@dataclass(kw_only=True)
class Outcome:
    """Result of a unit. The driver commits it with `DataSet.commit`."""

    number: int = 0
    """Number of the unit."""
    shards: list[ShardFacts] = field(default_factory=list)
    """Shards that the worker wrote, in the order of their rows."""
    dropped: list[str] = field(default_factory=list)
    """Files of shards that the worker wrote for inputs that failed."""
    ledger: list[LedgerRow] = field(default_factory=list)
    """At least one row for every input of the unit."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by step."""
