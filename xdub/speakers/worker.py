"""The worker of `xdub speakers`: face and voice networks in memory; a unit of work is one shard of the data."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from xdub.config import Recipe, recipe_from_dict
from xdub.data.clip import Clip, from_row
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardReader
from xdub.errors import UserError
from xdub.files.storage import Location
from xdub.perception.identity.load import load_identity
from xdub.perception.voice import VoiceEncoder
from xdub.precision import open_device
from xdub.screen.footprint import Footprint, footprint
from xdub.screen.speakers import Likeness
from xdub.speakers.files import Measured, file_name, write_measured

FACES = 5
"""Frames of a clip whose faces are averaged, evenly spaced."""
FRAME_RANGE = re.compile(r":\d+-\d+$")
"""End of the source of a clip that was cut from a recording."""


@dataclass(kw_only=True)
class LikenessOutcome:
    """Facts about one shard; the worker has written its file."""

    shard: int
    clips: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    """Clip id -> reason why it could not be measured."""
    failure: str = ""
    """Reason why the shard has no file; "" if it has."""
    seconds: float = 0.0


class LikenessWorker:
    """Measures face, voice and footprint of all clips of one shard at a time."""

    def __init__(
        self, recipe: Recipe | dict[str, Any], data: str, folder: Location, *, threads: int | None = None
    ) -> None:
        """Load the networks. Raise UserError if weights are missing."""
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = socket.gethostname()
        recipe = recipe if isinstance(recipe, Recipe) else recipe_from_dict(recipe)
        self._folder = folder
        self._identity = load_identity(recipe.perception, recipe.video).to(open_device())
        self._voice = VoiceEncoder.load()
        self._manifest = read_manifest(data)
        self._reader = ShardReader(self._manifest, verify=True)

    def run(self, shard: int) -> LikenessOutcome:
        """Measure a shard. A damaged clip is recorded without values, and a shard that cannot be read has no file."""
        begin, outcome = time.perf_counter(), LikenessOutcome(shard=shard)
        rows: list[Measured] = []
        try:
            for index in self._manifest.rows_of(shard):
                rows.append(self._row(index, outcome))
            write_measured(self._folder / file_name(self._manifest, shard), rows)
            outcome.clips = len(rows)
        except UserError as error:
            outcome.failure = str(error)
        outcome.seconds = time.perf_counter() - begin
        return outcome

    def measure(self, clip: Clip) -> Measured:
        """Measure one clip."""
        likeness = Likeness(
            clip_id=clip.clip_id,
            recording=FRAME_RANGE.sub("", clip.source),
            face=self._face(clip),
            voice=self._voice.embed(clip.audio),
        )
        return Measured(likeness=likeness, footprint=footprint(clip.frames, clip.audio))

    def _row(self, index: int, outcome: LikenessOutcome) -> Measured:
        row = self._reader.row(index)
        try:
            return self.measure(from_row(row))
        except UserError as error:
            clip_id = self._manifest.ids[index]
            outcome.bad[clip_id] = str(error)
            nothing = np.full(1, np.nan, np.float32)
            return Measured(
                likeness=Likeness(clip_id=clip_id, recording="", face=nothing, voice=nothing),
                footprint=Footprint(sound=np.zeros(0, np.uint32), pictures=np.zeros(0, np.uint64)),
            )

    def _face(self, clip: Clip) -> np.ndarray:
        """Return the mean face as a unit vector; nan without landmarks."""
        faces = np.flatnonzero(np.isfinite(clip.landmarks).all(axis=(1, 2)))
        if not len(faces):
            return np.full(1, np.nan, np.float32)
        picked = faces[np.unique(np.linspace(0, len(faces) - 1, FACES).round().astype(int))]
        mean = self._identity.embed(clip.frames[picked], clip.landmarks[picked]).mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-9)
