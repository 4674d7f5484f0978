"""The worker of `xdub encode`: codec and audio encoder in memory; a unit of work is one shard of the data."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdub.config import Recipe, recipe_from_dict
from xdub.data.clip import Clip, from_row
from xdub.data.latent_cache.entries import ClipEntries, EntryWriter
from xdub.data.latent_cache.folder import shard_digits
from xdub.data.latent_cache.key import LatentKey, latent_key
from xdub.data.latents import encode_video, window_features
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardReader
from xdub.data.windows import Draw, cut_at, window_starts
from xdub.errors import UserError
from xdub.files.content import file_sha256
from xdub.files.storage import Location
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.codec import load_codec
from xdub.pool.worker import StepTimer
from xdub.precision import dtype_of, one_thread, open_device
from xdub.speech_windows import speech_windows

UNFINISHED = ".unfinished-"
"""Beginning of the name of a file that a worker is writing on a disk."""


@dataclass(frozen=True)
class EncodeUnit:
    """One shard of the data."""

    shard: int
    """Index in the data set."""
    rows: range
    """The shard's rows in the data set."""


@dataclass(kw_only=True)
class EncodeOutcome:
    """Facts about one shard; the worker has written its file."""

    shard: int
    clips: int = 0
    windows: int = 0
    references: int = 0
    """Number of reference frames."""
    bytes: int = 0
    """Bytes of the file."""
    bad: dict[str, str] = field(default_factory=dict)
    """Clip id -> reason why it has no entries."""
    failure: str = ""
    """Reason why the shard has no file; "" if it has."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by step: read, codec, speech, write."""


class EncodeWorker:
    """Computes all entries of one shard at a time."""

    def __init__(
        self,
        recipe: Recipe | dict[str, Any],
        phase: str,
        data: str,
        folder: Location,
        *,
        threads: int | None = None,
    ) -> None:
        """Load the networks. ``folder`` is the cache of the phase's key; ``threads`` are those of torch."""
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = socket.gethostname()
        recipe = recipe if isinstance(recipe, Recipe) else recipe_from_dict(recipe)
        self._phase, self._folder, self._speech = phase, folder, recipe.model.speech
        self._key: LatentKey = latent_key(recipe, phase)
        self._device = open_device()
        codec = load_codec(recipe.codec)
        self._codec = codec.computing_in(dtype_of(recipe.train.precision)).to(self._device)
        self._audio = load_audio_encoder(recipe.audio).to(self._device)
        self._half = self._key.precision == "bf16"
        self._manifest = read_manifest(data)
        self._reader = ShardReader(self._manifest, verify=True)

    def run(self, unit: EncodeUnit) -> EncodeOutcome:
        """Encode a shard. A damaged clip has no entries, and a shard that cannot be read has no file; both say why."""
        outcome, timer = EncodeOutcome(shard=unit.shard), StepTimer()
        try:
            with _new_file(self._folder) as path:
                self._write(path, unit, outcome, timer)
                self._move(path, unit, outcome)
        except UserError as error:
            outcome.failure = str(error)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written ({error.strerror or error})") from error
        timer.lap("write")
        outcome.seconds = dict(timer.seconds)
        return outcome

    def _write(self, path: Path, unit: EncodeUnit, outcome: EncodeOutcome, timer: StepTimer) -> None:
        """Write the entries of all clips of a shard. Raise UserError if the shard cannot be read."""
        shard, writer = self._manifest.shards[unit.shard], EntryWriter(path)
        entries = []
        try:
            for index in unit.rows:
                row = self._reader.row(index)
                entries.append(self._clip(index, row, writer, timer))
            writer.close(data=shard.sha256, precision=self._key.precision, clips=entries)
        except BaseException:
            writer.abandon()
            raise
        outcome.clips = len(entries)
        outcome.windows = sum(clip.windows for clip in entries)
        outcome.references = sum(clip.references for clip in entries)
        outcome.bad = {clip.clip_id: clip.error for clip in entries if clip.error}

    def _clip(self, index: int, row: dict[str, Any], writer: EntryWriter, timer: StepTimer) -> ClipEntries:
        """Write the entries of one clip, windows first."""
        clip_id, first = self._manifest.ids[index], writer.rows
        num_frames = int(self._manifest.num_frames[index])
        facts: dict[str, Any] = {"clip_id": clip_id, "num_frames": num_frames, "first": first}
        starts = window_starts(num_frames, self._key.window, self._key.stride)
        if not starts:
            # Training skips clips that are shorter than a window.
            return ClipEntries(**facts, windows=0, references=0)
        try:
            clip = from_row(row)
        except UserError as error:
            return ClipEntries(**facts, windows=0, references=0, error=str(error))
        timer.lap("read")
        for start in starts:
            writer.add(self._window(clip, start, timer))
            timer.lap("write")
        elsewhere = self._key.inpaints and clip.references is not None
        candidates = clip.frames[:: self._key.stride] if clip.references is None else clip.references
        references = range(len(candidates) if self._key.inpaints else 0)
        for number in references:
            entry = {"z_ref": self._encoded(self._moved(candidates[number : number + 1]))}
            timer.lap("codec")
            writer.add(entry)
            timer.lap("write")
        counts: dict[str, Any] = {"windows": len(starts), "references": len(references)}
        return ClipEntries(**facts, **counts, elsewhere=elsewhere)

    def _window(self, clip: Clip, start: int, timer: StepTimer) -> dict[str, np.ndarray]:
        """Return the entry of one window."""
        sample = cut_at(
            clip,
            Draw(start, 0 if self._key.inpaints else None),
            phase=self._phase,
            window=self._key.window,
            geometry=self._codec.geometry,
            speech=self._speech,
        )
        entry = {name: sample[name] for name in ("face_mask", "lip_mask")}
        frames = self._moved(sample["frames"])
        entry["z0"] = self._encoded(frames)
        if self._key.inpaints:
            entry["z_mask"] = self._encoded(frames, self._moved(sample["hidden"]))
        else:
            entry["z_ref"] = self._encoded(self._moved(sample["reference"]))
            entry |= {name: sample[name] for name in ("landmarks", "sound")}
        timer.lap("codec")
        windows = speech_windows(self._speech, self._codec.geometry)
        entry["audio"] = self._stored(window_features(self._audio, sample["sound"], windows))
        timer.lap("speech")
        return entry

    @torch.no_grad()
    def _encoded(self, frames: Tensor, hidden: Tensor | None = None) -> np.ndarray:
        on_cpu = self._device.type == "cpu"
        with one_thread(enabled=on_cpu and self._codec.machine_independent):
            return self._stored(encode_video(self._codec, frames, hidden))

    def _moved(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def _stored(self, values: Tensor) -> np.ndarray:
        """Return values in the precision of the cache: float32, or the bits of bf16 as uint16."""
        if self._half:
            return values.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().view(np.uint16)
        return values.float().cpu().numpy()

    def _move(self, path: Path, unit: EncodeUnit, outcome: EncodeOutcome) -> None:
        """Move a complete file to its name in the cache."""
        own, size = file_sha256(path)[:16], path.stat().st_size
        name = f"{shard_digits(self._manifest.shards[unit.shard])}-{own}-{size}.parquet"
        if self._folder.local is None:
            (self._folder / name).upload(path)
        else:
            os.replace(path, self._folder.local / name)
        outcome.bytes = size


@contextmanager
def _new_file(folder: Location) -> Iterator[Path]:
    """Yield the path of a new file, beside the others if the cache is on a disk; it is removed unless it was moved."""
    if folder.local is None:
        with tempfile.TemporaryDirectory(prefix="xdub-encode-") as scratch:
            yield Path(scratch) / "entries.parquet"
        return
    path = folder.local / f"{UNFINISHED}{secrets.token_hex(8)}.parquet"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
