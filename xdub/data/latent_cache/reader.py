"""Samples of cached latents, drawn as `xdub.data.windows` draws samples of pixels. The module does not import torch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from xdub.data.latent_cache.entries import RENEW, ClipEntries, EntryFile
from xdub.data.latent_cache.folder import CacheFile, CacheFolder, shard_digits
from xdub.data.manifest import Manifest
from xdub.data.verify import verify_once
from xdub.data.windows import draw_window
from xdub.errors import UserError
from xdub.files.content import file_sha256
from xdub.files.storage import Location
from xdub.geometry import CodecGeometry
from xdub.speech_windows import SpeechForm, speech_windows

OPEN_FILES = 16
"""Largest number of files that a reader keeps open."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The samples that a phase draws from a cache."""

    phase: str
    window: int
    stride: int
    geometry: CodecGeometry
    speech: SpeechForm


class LatentReader:
    """Reader of the cached samples of one data set; it serves one thread. Each file is verified when it is opened."""

    def __init__(self, folder: Location, manifest: Manifest, grid: Grid) -> None:
        self.manifest, self.grid = manifest, grid
        self._folder = CacheFolder(folder)
        self._names = self._folder.files()
        self._files: OrderedDict[int, EntryFile] = OrderedDict()
        self._wrong: dict[int, UserError] = {}

    def path(self, index: int) -> Location:
        """Return the file with the entries of the data set's row ``index``, or the folder that lacks it."""
        shard = self.manifest.location(index)[0]
        file = self._names.get(shard_digits(self.manifest.shards[shard]))
        return self._folder.location / file.name if file else self._folder.location

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return a sample of row ``index`` of the data set: latents and features in place of pixels.

        Returns:
            z0, z_ref, z_mask (generator only), audio: float32, or uint16 with the bits of bf16; shapes as in
                `xdub.data.batch.Batch` without B.
            landmarks, sound: as in `xdub.data.windows.cut_at` (editor phases only).
            face_mask, lip_mask, starts, sample_id, start: as there.

        Raises:
            UserError: the entries are missing or damaged, or belong to another clip.
        """
        file, grid = self._open(self.manifest.location(index)[0]), self.grid
        clip = _clip_of(file, self.manifest.ids[index])
        draw = draw_window(
            clip.clip_id,
            clip.num_frames,
            phase=grid.phase,
            window=grid.window,
            rng=rng,
            stride=grid.stride,
            references=clip.references if clip.elsewhere else 0,
        )
        sample: dict[str, Any] = dict(file.entry(clip.first + draw.start // grid.stride))
        if draw.reference is not None:
            number = draw.reference if draw.elsewhere else draw.reference // grid.stride
            reference = clip.first + clip.windows + number
            sample |= file.entry(reference, ("z_ref",))
        latents = sample["face_mask"].shape[1]
        sample["starts"] = speech_windows(grid.speech, grid.geometry).starts(latents)
        return sample | {"sample_id": clip.clip_id, "start": draw.start}

    def _open(self, shard: int) -> EntryFile:
        """Return the file of a shard's entries; the least recently used files are closed."""
        if shard in self._wrong:
            raise self._wrong[shard]
        if shard not in self._files:
            facts = self.manifest.shards[shard]
            try:
                if (file := self._names.get(shard_digits(facts))) is None:
                    raise UserError(f"{self._folder}: no latents of {facts.file}; run `xdub encode`")
                self._files[shard] = open_entries(self._folder.location, file, facts.sha256)
            except UserError as error:
                self._wrong[shard] = error
                raise
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        return self._files[shard]


def open_entries(folder: Location, file: CacheFile, data: str) -> EntryFile:
    """Open a file of entries after its verification. Raise UserError if it is damaged or of another shard.

    ``data`` is the sha256 of the data's shard.
    """
    path = folder / file.name
    verify_entries(path, file)
    entries = EntryFile(path)
    if entries.index.data != data:
        raise UserError(f"{path}: holds latents of another shard; {RENEW}")
    return entries


def verify_entries(path: Location, file: CacheFile) -> None:
    """Raise UserError unless a file on a disk has the sha256 in its name; a machine hashes an unchanged file once.

    A file of an object store, which keeps checksums itself, is not read as a whole; Parquet's cover each page.
    """
    local = path.local
    if local is None:
        return

    def check() -> None:
        if not file_sha256(local).startswith(file.sha256):
            raise UserError(f"{path}: sha256 differs from its name: changed after writing; {RENEW}")

    try:
        verify_once(local, file.sha256, check)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {RENEW}") from error


def _clip_of(file: EntryFile, clip_id: str) -> ClipEntries:
    """Return the entries of a clip. Raise UserError if it has none."""
    clip = file.clips.get(clip_id)
    if clip is None:
        raise UserError(f"{file.path}: has no clip {clip_id}; {RENEW}")
    if clip.error:
        raise UserError(clip.error)
    return clip
