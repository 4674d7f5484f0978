"""The order of samples: a pure function of (seed, data, position), the same for any number of workers.

Positions count samples from the start of training, across epochs: position p is item p mod n of epoch p div n. A
training state stores one integer, the cursor, which is the next position. Rank r of w gets the r-th of w equal slices
of each global batch, so the global batches do not depend on w.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from xdub.config import needs_pairs
from xdub.data.columns import Numbers, Texts
from xdub.data.held_out import HeldOut, draw_held_out
from xdub.data.manifest import Manifest, read_manifest
from xdub.data.shards import has_renamed_speakers, speakers_of
from xdub.errors import UserError
from xdub.seeding import rng


@dataclass(frozen=True)
class RowRef:
    """A row of one of the order's data sets."""

    dataset: int
    """Index of the data set."""
    row: int
    """Index of the row in the data set."""


class RowRefs(Sequence[RowRef]):
    """Rows as two arrays [n], of data sets and of rows."""

    def __init__(self, dataset: np.ndarray, row: np.ndarray) -> None:
        self.dataset, self.row = dataset, row

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, index: int) -> RowRef: ...
    @overload
    def __getitem__(self, index: slice) -> RowRefs: ...
    def __getitem__(self, index: int | slice) -> RowRef | RowRefs:
        if isinstance(index, slice):
            return RowRefs(self.dataset[index], self.row[index])
        return RowRef(int(self.dataset[index]), int(self.row[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None


class SampleOrder:
    """Order of the samples of one or more data sets; clips of less than `window` frames are skipped."""

    def __init__(
        self,
        manifests: Sequence[Manifest],
        *,
        window: int,
        seed: int,
        shards_together: int = 8,
        held_out: float = 0.0,
    ) -> None:
        """Read the lengths of all clips. ``held_out`` is the share of clips that the order leaves for `held_out_rows`.

        Raise UserError if no clip is long enough.
        """
        self.manifests, self.seed, self.shards_together = tuple(manifests), seed, shards_together
        self.window, self.held_out = window, held_out
        self.held_out_rows = RowRefs(np.empty(0, np.int32), np.empty(0, np.int32))
        """Rows that no position has."""
        self.held_out_by: str | None = None
        """Unit of their draw, `HeldOut.by`; None without such rows."""
        long = [
            np.flatnonzero(Numbers.of(manifest.num_frames).array >= window) for manifest in self.manifests
        ]
        dataset = np.repeat(np.arange(len(long), dtype=np.int32), [len(rows) for rows in long])
        row = np.concatenate([*long, np.empty(0, np.int64)]).astype(np.int32)
        self.too_short = sum(len(manifest.ids) for manifest in self.manifests) - len(row)
        if held_out > 0:
            apart = self._draw_held_out(long)
            items = np.array(apart.items, np.int64)
            self.held_out_rows = RowRefs(dataset[items], row[items])
            self.held_out_by = apart.by if apart.items else None
            dataset, row = np.delete(dataset, items), np.delete(row, items)
        self.rows = RowRefs(dataset, row)
        if not len(row):
            folders = ", ".join(str(manifest.folder) for manifest in self.manifests)
            raise UserError(
                f"{folders}: none of {self.too_short} clips has {window} frames, which a window needs"
            )
        self._bounds = self._shard_bounds()
        self._order = lru_cache(maxsize=2)(self._order)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """16 hex digits of everything that decides the order; a cursor is valid for one digest only."""
        parts = [manifest.digest for manifest in self.manifests]
        text = f"{parts} {self.seed} {self.window} {self.shards_together}"
        if self.held_out:
            text += f" {self.held_out} {self.held_out_by}"
            # The manifests' digests do not contain speakers that were replaced, which decide the draw.
            if any(map(has_renamed_speakers, self.manifests)):
                rows = self.held_out_rows
                text += f" {list(zip(rows.dataset.tolist(), rows.row.tolist(), strict=True))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def at(self, position: int) -> tuple[int, RowRef]:
        """Return (epoch, row) of a position."""
        epoch, item = divmod(position, len(self))
        return epoch, self.rows[self._order(epoch)[item]]

    def clip_id(self, ref: RowRef) -> str:
        """Return the clip id of a row."""
        return self.manifests[ref.dataset].ids[ref.row]

    def substitute(self, epoch: int, clip_id: str, attempt: int) -> RowRef:
        """Return the row that replaces an unreadable clip, the same row on every machine."""
        choice = rng(self.seed, "substitute", epoch, clip_id, attempt).integers(len(self))
        return self.rows[int(choice)]

    def _draw_held_out(self, rows: Sequence[np.ndarray]) -> HeldOut:
        """Draw the clips that are held out among rows of each data set, whole speakers where possible."""
        import pyarrow as pa

        ids = [Texts.of(m.ids).array.take(pa.array(r)) for m, r in zip(self.manifests, rows, strict=True)]
        numbers: dict[str, int] = {}
        codes = []
        for manifest, each in zip(self.manifests, rows, strict=True):
            own, names = Texts.of(speakers_of(manifest)).codes()
            shared = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)
            codes.append(shared[own[each]])
        speakers = pa.DictionaryArray.from_arrays(pa.array(np.concatenate(codes)), pa.array(list(numbers)))
        return draw_held_out(Texts(pa.concat_arrays(ids)), Texts(speakers), self.held_out)

    def _shard_bounds(self) -> np.ndarray:
        """Return the first item of each shard with items, and the number of items [shards + 1]."""
        shard = np.empty(len(self.rows), np.int64)
        for number, manifest in enumerate(self.manifests):
            own = self.rows.dataset == number
            shard[own] = manifest.row_places[0][self.rows.row[own]]
        # Items are in the order of data sets and of their shards.
        changes = (np.diff(shard) != 0) | (np.diff(self.rows.dataset) != 0)
        return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(shard)]])

    def _order(self, epoch: int) -> np.ndarray:
        """Permute the items. Shards are shuffled, then rows within groups of shards, so that reading stays local."""
        random = rng(self.seed, "order", epoch)
        first, end = self._bounds[:-1].tolist(), self._bounds[1:].tolist()
        shuffled = random.permutation(len(first)).tolist()
        groups = range(0, len(shuffled), self.shards_together)
        return np.concatenate(
            [
                random.permutation(
                    np.concatenate(
                        [np.arange(first[i], end[i]) for i in shuffled[g : g + self.shards_together]]
                    )
                )
                for g in groups
            ]
        )


def micro_batches(
    cursor: int, *, global_batch: int, micro_batch: int, rank: int = 0, world_size: int = 1
) -> Iterator[range]:
    """Yield position ranges of one rank without end from `cursor` on, global_batch / (world_size micro_batch) a step.

    Raise UserError if the sizes do not divide.
    """
    per_rank, rest = divmod(global_batch, world_size)
    if rest or per_rank % micro_batch:
        raise UserError(
            f"train.global_batch={global_batch} is not divisible by micro_batch x workers "
            f"({micro_batch} x {world_size})"
        )
    while True:
        first = cursor + rank * per_rank
        for low in range(first, first + per_rank, micro_batch):
            yield range(low, low + micro_batch)
        cursor += global_batch


def sample_order(
    folders: Sequence[str | Path],
    *,
    phase: str,
    window: int,
    seed: int,
    held_out: float = 0.0,
    verify: bool = False,
) -> SampleOrder:
    """Build the order of data set folders for a phase. Raise UserError if an editor phase gets clips, not pairs."""
    manifests = [read_manifest(folder, verify) for folder in folders]
    for manifest in manifests:
        if needs_pairs(phase) and manifest.kind != "pairs":
            raise UserError(
                f"{manifest.folder} holds clips, but phase {phase} trains on pairs: build them with `xdub pairs`"
            )
    return SampleOrder(manifests, window=window, seed=seed, held_out=held_out)
