"""From a position of the plan to a sample: read, decode, cut the window. Shared by every executor in stream.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdub.data.clip import Clip
from xdub.data.plan import Place, Plan, make_plan
from xdub.data.shards import ShardReader
from xdub.data.windows import Encodes, EncodesAudio, make_window, one_thread
from xdub.errors import UserError
from xdub.seeding import rng

ATTEMPTS = 8
"""Rows tried in place of an unreadable one."""


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """All that decides the batches of one rank. Picklable: codec and audio encoder are made where they are used."""

    data: tuple[str, ...]
    phase: str
    window: int
    seed: int
    global_batch: int
    micro_batch: int
    make_codec: Callable[[], Encodes]
    make_audio_encoder: Callable[[], EncodesAudio]
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    """Where the codec runs."""
    max_bad: float = 0.01
    """Largest share of rows that may be unreadable (one row always may)."""

    @classmethod
    def from_recipe(
        cls, recipe: Any, phase: str, data: str | Path | Sequence[str | Path], **others: Any
    ) -> StreamSpec:
        """The spec of a recipe's phase; `others` adds make_codec, make_audio_encoder, rank, world_size, ..."""
        folders = [data] if isinstance(data, (str, Path)) else data
        train = recipe.for_phase(phase)
        values = {
            "data": tuple(str(folder) for folder in folders),
            "phase": phase,
            "window": recipe.phase(phase).window,
            "seed": train.seed,
            "global_batch": train.global_batch,
            "micro_batch": train.micro_batch_of(others.get("world_size", 1)),
        }
        return cls(**(values | others))

    def plan(self, verify: bool = False) -> Plan:
        return make_plan(self.data, phase=self.phase, window=self.window, seed=self.seed, verify=verify)


class SampleMaker:
    """Samples by position. Keeps up to `cache_bytes` of decoded clips; not for sharing between threads."""

    def __init__(self, spec: StreamSpec, plan: Plan | None = None, cache_bytes: int = 0) -> None:
        self.spec, self.plan = spec, plan or spec.plan()
        self.codec, self.audio_encoder = spec.make_codec(), spec.make_audio_encoder()
        self._readers = [ShardReader(manifest) for manifest in self.plan.manifests]
        self._cache: OrderedDict[Place, tuple[Clip, Tensor]] = OrderedDict()
        self._cached_bytes, self._cache_bytes = 0, cache_bytes

    def batch(self, positions: Sequence[int]) -> dict[str, Any]:
        """The collated samples at these positions (see `collate`)."""
        with one_thread():
            return collate([self.sample(position) for position in positions])

    def sample(self, position: int) -> dict[str, Any]:
        """make_window's dict with `epoch`, `position`, and `bad`: {clip_id: error} of rows that had to be replaced.

        A row that cannot be read costs itself, not its batch: another one takes its place, chosen by (seed, epoch, id).
        """
        epoch, place = self.plan.at(position)
        wanted, bad = self.plan.clip_id(place), {}
        for attempt in range(ATTEMPTS):
            try:
                sample = self._make(place, epoch)
            except Exception as error:  # whatever a damaged row raises must stay with that row
                bad[self.plan.clip_id(place)] = f"{type(error).__name__}: {error}"
                place = self.plan.substitute(epoch, wanted, attempt)
            else:
                return sample | {"epoch": epoch, "position": position, "bad": bad}
        name, message = next(iter(bad.items()))
        raise UserError(f"{ATTEMPTS} clips in a row cannot be made samples; first {name}: {message}")

    def _make(self, place: Place, epoch: int) -> dict[str, Any]:
        clip, features = self._load(place)
        return make_window(
            clip,
            phase=self.spec.phase,
            window=self.spec.window,
            codec=self.codec,
            audio_encoder=self.audio_encoder,
            rng=rng(self.spec.seed, "window", epoch, clip.clip_id),
            audio_features=features,
            device=self.spec.device,
        )

    def _load(self, place: Place) -> tuple[Clip, Tensor]:
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        clip = self._readers[place.dataset].clip(place.row)
        entry = (clip, self.audio_encoder.encode(clip.audio))
        if self._cache_bytes:
            self._cache[place] = entry
            self._cached_bytes += _size(entry)
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= _size(self._cache.popitem(last=False)[1])
        return entry


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> batch. Tensors are stacked; `starts` [f] is the same for all.

    z0, z_ref, (z_mask) [B,C,f,h,w] · audio [B,T,d] · starts [f] · face_mask, lip_mask [B,1,f,h,w] · sample_id list ·
    epochs, positions, window_starts int64 [B] · epoch int (of the first sample) · bad {clip_id: error}
    """
    names = [name for name, value in samples[0].items() if isinstance(value, Tensor) and name != "starts"]
    batch: dict[str, Any] = {name: torch.stack([sample[name] for sample in samples]) for name in names}
    batch["starts"] = samples[0]["starts"]
    batch["sample_id"] = [sample["sample_id"] for sample in samples]
    for plural, name in (("epochs", "epoch"), ("positions", "position"), ("window_starts", "start")):
        batch[plural] = torch.tensor([sample[name] for sample in samples])
    batch["epoch"] = samples[0]["epoch"]
    batch["bad"] = {name: error for sample in samples for name, error in sample["bad"].items()}
    return batch


def _size(entry: tuple[Clip, Tensor]) -> int:
    clip, features = entry
    arrays = [value for value in vars(clip).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes for array in arrays) + features.nbytes
