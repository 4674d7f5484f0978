"""From a position of the plan to a sample: read, decode, cut the window. Shared by every executor in stream.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xdub.data.batch import RawBatch
from xdub.data.clip import Clip
from xdub.data.quarantine import BadRow
from xdub.data.sample_order import Place, Plan, make_plan
from xdub.data.shards import ShardReader
from xdub.data.windows import cut_window
from xdub.errors import UserError
from xdub.geometry import CodecGeometry
from xdub.seeding import rng

ATTEMPTS = 8
"""Rows tried in place of an unreadable one."""


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """All that decides the batches of one rank. Picklable."""

    data: tuple[str, ...]
    phase: str
    window: int
    geometry: CodecGeometry
    """The codec's, which decides the size of masks and the rows of each latent."""
    seed: int
    global_batch: int
    micro_batch: int
    rank: int = 0
    world_size: int = 1
    max_bad: float = 0.01
    """Largest share of rows that may be unreadable (one row always may)."""

    @classmethod
    def from_recipe(
        cls, recipe: Any, phase: str, data: str | Path | Sequence[str | Path], **others: Any
    ) -> StreamSpec:
        """The spec of a recipe's phase; `others` adds rank and world_size."""
        folders = [data] if isinstance(data, (str, Path)) else data
        train = recipe.for_phase(phase)
        values = {
            "data": tuple(str(folder) for folder in folders),
            "phase": phase,
            "window": recipe.phase(phase).window,
            "geometry": recipe.codec.geometry,
            "seed": train.seed,
            "global_batch": train.global_batch,
            "micro_batch": train.micro_batch_of(others.get("world_size", 1)),
        }
        return cls(**(values | others))

    def plan(self, verify: bool = False) -> Plan:
        return make_plan(self.data, phase=self.phase, window=self.window, seed=self.seed, verify=verify)


class SampleMaker:
    """Samples by position, from shards whose sha256 is right. Keeps up to `cache_bytes` of decoded clips.

    Not for sharing between threads.
    """

    def __init__(self, spec: StreamSpec, plan: Plan | None = None, cache_bytes: int = 0) -> None:
        self.spec, self.plan = spec, plan or spec.plan()
        self._readers = [ShardReader(manifest, verify=True) for manifest in self.plan.manifests]
        self._cache: OrderedDict[Place, Clip] = OrderedDict()
        self._cached_bytes, self._cache_bytes = 0, cache_bytes

    def batch(self, positions: Sequence[int]) -> RawBatch:
        """Return the collated samples at these positions."""
        return collate([self.sample(position) for position in positions])

    def sample(self, position: int) -> dict[str, Any]:
        """cut_window's dict with `epoch`, `position`, and `bad`: {clip_id: BadRow} of rows that had to be replaced.

        A row that cannot be read costs itself, not its batch: another one takes its place, chosen by (seed, epoch, id).
        """
        epoch, place = self.plan.at(position)
        wanted, bad = self.plan.clip_id(place), dict[str, BadRow]()
        for attempt in range(ATTEMPTS):
            try:
                sample = self._make(place, epoch)
            except Exception as error:  # whatever a damaged row raises must stay with that row
                shard = self._readers[place.dataset].path(place.row)
                bad[self.plan.clip_id(place)] = BadRow(f"{type(error).__name__}: {error}", str(shard), epoch)
                place = self.plan.substitute(epoch, wanted, attempt)
            else:
                return sample | {"epoch": epoch, "position": position, "bad": bad}
        name, row = next(iter(bad.items()))
        raise UserError(f"{ATTEMPTS} clips in a row cannot be made samples; first {name}: {row.error}")

    def _make(self, place: Place, epoch: int) -> dict[str, Any]:
        clip = self._load(place)
        random = rng(self.spec.seed, "window", epoch, clip.clip_id)
        return cut_window(
            clip, phase=self.spec.phase, window=self.spec.window, geometry=self.spec.geometry, rng=random
        )

    def _load(self, place: Place) -> Clip:
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        clip = self._readers[place.dataset].clip(place.row)
        if self._cache_bytes:
            self._cache[place] = clip
            self._cached_bytes += _size(clip)
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= _size(self._cache.popitem(last=False)[1])
        return clip


def collate(samples: Sequence[dict[str, Any]]) -> RawBatch:
    """Stack samples (`cut_window`'s fields with `epoch`, `position` and `bad`) to a batch."""

    def stacked(name: str) -> np.ndarray:
        return np.stack([sample[name] for sample in samples])

    def numbers(name: str) -> np.ndarray:
        return np.array([sample[name] for sample in samples], np.int64)

    batch: RawBatch = {
        "frames": stacked("frames"),
        "reference": stacked("reference"),
        "face_mask": stacked("face_mask"),
        "lip_mask": stacked("lip_mask"),
        "starts": samples[0]["starts"],
        "waves": [sample["wave"] for sample in samples],
        "sample_id": [sample["sample_id"] for sample in samples],
        "epochs": numbers("epoch"),
        "positions": numbers("position"),
        "window_starts": numbers("start"),
        "epoch": samples[0]["epoch"],
        "bad": {name: row for sample in samples for name, row in sample["bad"].items()},
    }
    if "hidden" in samples[0]:
        batch["hidden"] = stacked("hidden")
    return batch


def _size(clip: Clip) -> int:
    return sum(value.nbytes for value in vars(clip).values() if isinstance(value, np.ndarray))
