"""The ledger row of a pair that was judged: kept, or rejected by which check; every score either way."""

from __future__ import annotations

from collections.abc import Mapping

from xdub.data.ledger import LedgerRow
from xdub.pairs.filters import Verdict


def judged_row(
    key: str, pair_id: str, verdict: Verdict, scores: Mapping[str, float], message: str = ""
) -> LedgerRow:
    """Scores in order of their names, so that equal pairs give equal ledgers."""
    measured = {name: float(scores[name]) for name in sorted(scores)}
    failed = verdict.failed
    if failed is None:
        return LedgerRow(input=key, clip_id=pair_id, status="kept", message=message, scores=measured)
    return LedgerRow(
        input=key,
        clip_id=pair_id,
        status="rejected",
        check=failed.name,
        value=failed.value,
        threshold=failed.threshold,
        message=message,
        scores=measured,
    )
