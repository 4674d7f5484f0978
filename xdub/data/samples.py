"""Samples by position: read a row, decode it, cut its window. Both streams of stream.py use this code."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from xdub.config import Recipe
from xdub.data.batch import RawBatch
from xdub.data.clip import Clip
from xdub.data.latent_cache.reader import Grid, LatentReader
from xdub.data.quarantine import BadRow
from xdub.data.sample_order import RowRef, SampleOrder, sample_order
from xdub.data.shards import ShardReader
from xdub.data.windows import cut_window
from xdub.errors import UserError
from xdub.files.storage import Location
from xdub.geometry import CodecGeometry
from xdub.seeding import rng
from xdub.speech_windows import SpeechForm

ATTEMPTS = 8
"""Number of rows tried in place of an unreadable row."""


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """Everything that decides the batches of one rank; it can be pickled."""

    data: tuple[str, ...]
    """Folders of the data sets."""
    phase: str
    window: int
    """Frames of a sample."""
    geometry: CodecGeometry
    """Geometry of the codec, which decides the size of masks and the audio rows of each latent."""
    seed: int
    global_batch: int
    """Samples of a step over all ranks."""
    micro_batch: int
    """Samples of a batch."""
    rank: int = 0
    """Index of the stream among those of all ranks; the ranks that share a sample have the same index."""
    world_size: int = 1
    """Number of different streams."""
    max_bad: float = 0.01
    """Largest share of rows that may be unreadable; one unreadable row is always allowed."""
    held_out: float = 0.0
    """Share of the clips that the stream leaves out."""
    speech: SpeechForm = "frames"
    """Form of the audio rows of each latent."""
    stride: int = 1
    """Grid of the windows' starts, frames."""
    caches: tuple[Location, ...] = ()
    """Folder with the cached latents of each data set; (): samples are pixels."""

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        phase: str,
        data: str | Path | Sequence[str | Path],
        *,
        rank: int = 0,
        world_size: int = 1,
        caches: Sequence[Location] = (),
    ) -> StreamSpec:
        """Return the spec of a recipe's phase for one rank of the run's ``world_size`` ranks.

        Ranks that share a sample (``train.sequence_parallel``) have equal specs. ``caches`` are those of
        `xdub.data.latent_cache.folder.required_caches`.
        """
        folders = [data] if isinstance(data, (str, Path)) else data
        train = recipe.for_phase(phase)
        return cls(
            data=tuple(str(folder) for folder in folders),
            phase=phase,
            window=recipe.window(phase),
            geometry=recipe.codec.geometry,
            seed=recipe.seed_of(phase),
            global_batch=train.global_batch,
            micro_batch=train.micro_batch_of(world_size),
            rank=rank // train.sequence_parallel,
            world_size=train.groups_of(world_size),
            held_out=recipe.held_out(phase),
            speech=recipe.model.speech,
            stride=train.window_stride,
            caches=tuple(caches),
        )

    def of_pixels(self) -> StreamSpec:
        """Return the spec of the same samples as pixels."""
        return replace(self, caches=())

    def order(self, verify: bool = False) -> SampleOrder:
        """Read the manifests and return the order of the samples; ``verify`` hashes every shard."""
        return sample_order(
            self.data,
            phase=self.phase,
            window=self.window,
            seed=self.seed,
            held_out=self.held_out,
            verify=verify,
        )


class SampleMaker:
    """Reader of samples by position from verified shards; it keeps up to `cache_bytes` of decoded clips.

    Samples are pixels, or latents where the spec names caches. A reader is not safe for several threads.
    """

    def __init__(self, spec: StreamSpec, order: SampleOrder | None = None, cache_bytes: int = 0) -> None:
        self.spec, self.order = spec, order or spec.order()
        self._readers = [ShardReader(manifest, verify=True) for manifest in self.order.manifests]
        grid = Grid(
            phase=spec.phase,
            window=spec.window,
            stride=spec.stride,
            geometry=spec.geometry,
            speech=spec.speech,
        )
        self._latents = [
            LatentReader(folder, manifest, grid)
            for folder, manifest in zip(spec.caches, self.order.manifests, strict=bool(spec.caches))
        ]
        self._cache: OrderedDict[RowRef, Clip] = OrderedDict()
        self._cached_bytes, self._cache_bytes = 0, cache_bytes

    def batch(self, positions: Sequence[int]) -> RawBatch:
        """Return the collated samples at these positions."""
        return collate([self.sample(position) for position in positions])

    def sample(self, position: int) -> dict[str, Any]:
        """Return a sample with `epoch`, `position`, and `bad`, {clip_id: BadRow} of rows that were replaced.

        Its fields are those of `xdub.data.windows.cut_at`, or of `LatentReader.sample`.

        An unreadable row is replaced by another one, chosen by (seed, epoch, id), so the batch stays complete.
        """
        epoch, ref = self.order.at(position)
        clip_id, bad = self.order.clip_id(ref), dict[str, BadRow]()
        for attempt in range(ATTEMPTS):
            try:
                sample = self._cut(ref, epoch)
            # A damaged row may raise any error.
            except Exception as error:
                readers = self._latents or self._readers
                shard = readers[ref.dataset].path(ref.row)
                bad[self.order.clip_id(ref)] = BadRow(f"{type(error).__name__}: {error}", str(shard), epoch)
                ref = self.order.substitute(epoch, clip_id, attempt)
            else:
                return sample | {"epoch": epoch, "position": position, "bad": bad}
        name, row = next(iter(bad.items()))
        raise UserError(f"{ATTEMPTS} clips in a row cannot be read as samples; first {name}: {row.error}")

    def held_out(self, most: int) -> list[dict[str, Any]]:
        """Return the samples of at most ``most`` held-out clips that can be read, the same at every call."""
        samples = []
        for ref in self.order.held_out_rows[:most]:
            # A damaged row may raise any error, and the figures do without it.
            with contextlib.suppress(Exception):
                samples.append(self._cut(ref, 0) | {"epoch": 0, "position": 0, "bad": {}})
        return samples

    def _cut(self, ref: RowRef, epoch: int) -> dict[str, Any]:
        if self._latents:
            random = rng(self.spec.seed, "window", epoch, self.order.clip_id(ref))
            return self._latents[ref.dataset].sample(ref.row, random)
        clip = self._load(ref)
        random = rng(self.spec.seed, "window", epoch, clip.clip_id)
        return cut_window(
            clip,
            phase=self.spec.phase,
            window=self.spec.window,
            geometry=self.spec.geometry,
            rng=random,
            speech=self.spec.speech,
            stride=self.spec.stride,
        )

    def _load(self, ref: RowRef) -> Clip:
        """Return a decoded clip; the least recently used clips leave the cache."""
        if ref in self._cache:
            self._cache.move_to_end(ref)
            return self._cache[ref]
        clip = self._readers[ref.dataset].clip(ref.row)
        if self._cache_bytes:
            self._cache[ref] = clip
            self._cached_bytes += _size(clip)
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= _size(self._cache.popitem(last=False)[1])
        return clip


STACKED = (
    "frames",
    "reference",
    "hidden",
    "z0",
    "z_ref",
    "z_mask",
    "audio",
    "landmarks",
    "sound",
    "face_mask",
    "lip_mask",
)
"""Fields of a sample that a batch stacks; each kind of sample has some of them."""


def collate(samples: Sequence[dict[str, Any]]) -> RawBatch:
    """Stack samples (fields of `SampleMaker.sample`) to a batch."""

    def numbers(name: str) -> np.ndarray:
        return np.array([sample[name] for sample in samples], np.int64)

    stacked = {name: np.stack([s[name] for s in samples]) for name in STACKED if name in samples[0]}
    others = {
        "starts": samples[0]["starts"],
        "sample_id": [sample["sample_id"] for sample in samples],
        "epochs": numbers("epoch"),
        "positions": numbers("position"),
        "window_starts": numbers("start"),
        "epoch": samples[0]["epoch"],
        "bad": {name: row for sample in samples for name, row in sample["bad"].items()},
    }
    return cast(RawBatch, stacked | others)


def _size(clip: Clip) -> int:
    """Return the bytes of a clip's arrays."""
    return sum(value.nbytes for value in vars(clip).values() if isinstance(value, np.ndarray))
