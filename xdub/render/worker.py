"""The work on a block of rendered clips: render, write the truth files and one shard, return facts and ledger rows."""

from __future__ import annotations

import io
import os
import socket
import time
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np

from xdub.config import CropKind
from xdub.data.clip import to_row
from xdub.data.ledger import LedgerRow
from xdub.data.outcome import Outcome
from xdub.data.shard_files import write_shard
from xdub.files.storage import Location
from xdub.render.clips import RenderedPair, make_clips
from xdub.render.processes import limit_threads

TRUTH = "truth"
"""Folder of the ground truth, one npz file a clip."""


class Video(TypedDict):
    """Sizes of a clip: the arguments of `make_clips`."""

    size: int
    frames: int
    crop_scale: float
    full_size: int
    crop_kind: NotRequired[CropKind]


@dataclass(frozen=True)
class RenderUnit:
    """Indices of clips that one worker renders and that are committed together."""

    number: int
    indices: tuple[int, ...]


class RenderWorker:
    """Renderer with its OpenGL context; processes one block of clips at a time."""

    def __init__(self, seed: int, video: Video, out: Location, *, alone: bool = False) -> None:
        """Keep the settings; the renderer opens with the first clip.

        Args:
            seed: seed of the data set.
            video: sizes of the clips.
            out: folder of the data set.
            alone: use all cores, because no other worker runs.
        """
        self.name = socket.gethostname()
        self._seed, self._video, self._out = seed, video, out
        if not alone:
            limit_threads()

    def run(self, unit: RenderUnit) -> Outcome:
        """Render the clips of a block and their twins; an error stops the run, because it would repeat."""
        outcome, rows, worker = Outcome(number=unit.number), [], f"{self.name}:{os.getpid()}"
        for index in unit.indices:
            begin = time.monotonic()
            pair = next(make_clips(self._seed, [index], **self._video))
            both = (to_row(pair.clip), to_row(pair.twin))
            for row, twin in zip(both, (False, True), strict=True):
                (self._out / TRUTH / f"{row['clip_id']}.npz").write_bytes(truth_bytes(pair, twin=twin))
            seconds = time.monotonic() - begin
            rows += both
            outcome.ledger += [
                LedgerRow(
                    input=pair.clip.source,
                    clip_id=row["clip_id"],
                    status="kept",
                    worker=worker,
                    seconds=seconds / 2,
                )
                for row in both
            ]
            outcome.seconds["render"] = outcome.seconds.get("render", 0.0) + seconds
        outcome.shards.append(write_shard(self._out, rows))
        return outcome


def clip_input(seed: int, index: int) -> str:
    """Return the name of a clip in the ledger."""
    return f"render:{seed}/{index}"


def failed_block(seed: int, unit: RenderUnit, reason: str) -> Outcome:
    """Return the outcome of a block whose workers died: every clip fails."""
    return Outcome(
        number=unit.number,
        ledger=[
            LedgerRow(input=clip_input(seed, index), status="failed", check="worker", message=reason)
            for index in unit.indices
        ],
    )


def truth_bytes(pair: RenderedPair, *, twin: bool) -> bytes:
    """Encode as npz the ground truth that a clip's row has no column for.

    `curves` [F,C] with `curve_names` [C], `boxes` [F,3] and `landmarks_full` [F,68,2] in px of the full frames,
    `phones` and their `phone_starts` in seconds, `identity`.
    """
    curves, phones = (pair.twin_curves, pair.twin_phones) if twin else (pair.curves, pair.phones)
    out = io.BytesIO()
    np.savez_compressed(
        out,
        curve_names=np.array(list(curves)),
        curves=np.stack(list(curves.values()), 1),
        boxes=pair.boxes,
        landmarks_full=pair.twin_landmarks if twin else pair.full_landmarks,
        phones=np.array([name for name, _ in phones]),
        phone_starts=np.array([start for _, start in phones], np.float32),
        identity=np.array(pair.identity),
    )
    return out.getvalue()
