"""The rules by which later rows of a ledger replace earlier ones, on arrays of hashes: 18 bytes a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xdub.data.hash_index import text_hash

if TYPE_CHECKING:
    import pyarrow as pa

REOPENED = "reopened"
"""Status of a row on disk that removes the earlier rows of its input that are not kept."""
CODES = {REOPENED: 0, "failed": 1, "rejected": 2, "kept": 3}
"""Number of each status in arrays and in the index."""
KEPT = CODES["kept"]
"""Number of the status "kept"."""


class Keys:
    """Hashes and states of the rows of several tables, in their order."""

    def __init__(self) -> None:
        self._columns: list[tuple[np.ndarray, ...]] = []

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table with the columns input, clip_id and status."""
        rows = table.num_rows
        inputs, clips = table["input"].to_pylist(), table["clip_id"].to_pylist()
        self._columns.append(
            (
                np.fromiter(map(text_hash, inputs), np.uint64, rows),
                np.fromiter(map(text_hash, inputs, clips), np.uint64, rows),
                np.fromiter((CODES[status] for status in table["status"].to_pylist()), np.uint8, rows),
                np.fromiter((not clip for clip in clips), bool, rows),
            )
        )

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return of every row: hash of the input, hash of input and clip, code, and whether it has no clip; [n] each.

        The hash of input and clip of a row that reopens is unique, because no row replaces it.
        """
        empty = (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty(0, bool))
        source, clip, code, whole = (
            np.concatenate(column) for column in zip(empty, *self._columns, strict=True)
        )
        return source, clip, code, whole


def live_rows(keys: Keys) -> np.ndarray:
    """Return whether [n] each row counts."""
    source, clip, code, whole = keys.arrays()
    number = np.arange(len(source))
    _, inputs = np.unique(source, return_inverse=True)
    reopens = code == CODES[REOPENED]
    # An assignment to equal indices keeps the last value.
    last_reopened, last_result = np.full(len(source), -1), np.full(len(source), -1)
    last_reopened[inputs[reopens]] = number[reopens]
    results = code >= CODES["rejected"]
    last_result[inputs[results]] = number[results]
    newest = np.zeros(len(source), bool)
    rows = number[~reopens]
    order = np.argsort(clip[rows], kind="stable")
    ordered = clip[rows][order]
    newest[rows[order[np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]]]] = True
    open_again = (code != KEPT) & (number < last_reopened[inputs])
    outdated = (code == CODES["failed"]) & whole & (number < last_result[inputs])
    return newest & ~open_again & ~outdated


def without_replaced(table: pa.Table) -> pa.Table:
    """Return a table of adjacent rows without those that later rows of the table replaced."""
    import pyarrow as pa

    keys = Keys()
    keys.add(table)
    source, _, code, _ = keys.arrays()
    keep = live_rows(keys)
    reopens = np.flatnonzero(code == CODES[REOPENED])
    # The last row that reopens an input also removes rows of earlier parts.
    _, reverse = np.unique(source[reopens][::-1], return_index=True)
    keep[reopens[len(reopens) - 1 - reverse]] = True
    return table.filter(pa.array(keep))
