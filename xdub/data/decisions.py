"""Decisions of a person on the masks of clips (paper B.3): one line of JSON a decision, later lines win."""

from __future__ import annotations

import json
from pathlib import Path

from xdub.errors import UserError
from xdub.files.storage import Location, locate

DECISIONS = "decisions.jsonl"
"""File in the folder of a data set, which `xdub review` names and `xdub prepare` and `xdub pairs` read."""
REVIEW = "review"
"""Name of the check in ledger rows."""


def rejected_clips(path: str | Path | Location, *, required: bool = False) -> frozenset[str]:
    """Return the ids of the clips that a file of decisions rejects; a missing file rejects none, unless ``required``.

    Raise UserError for a missing file that is required, and for a line that is no decision.
    """
    file = locate(path)
    if not file.is_file():
        if required:
            raise UserError(f"{file}: no such file of decisions; `xdub review` writes one")
        return frozenset()
    last: dict[str, bool] = {}
    for number, line in enumerate(file.read_bytes().decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            clip_id, decision = row["clip_id"], row["decision"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}, line {number}: not a decision ({line[:60]})") from error
        if decision not in ("accept", "reject"):
            raise UserError(f"{file}, line {number}: the decision is {decision!r}, not accept or reject")
        last[str(clip_id)] = decision == "reject"
    return frozenset(clip_id for clip_id, rejected in last.items() if rejected)
