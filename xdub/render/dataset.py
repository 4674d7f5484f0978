"""A data set of rendered heads: clip shards with twins, ground truth beside the shards, and a ledger for resuming."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from xdub.config import CropKind, Recipe
from xdub.data.clip import to_row
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.shards import ShardWriter
from xdub.errors import UserError
from xdub.progress import Report
from xdub.render.assets import load_assets
from xdub.render.clips import FIRST_HELD_OUT, RenderedPair, make_clips
from xdub.render.processes import renderers

VERSION = 1
"""Version of pictures and speech; raise it when the same seed and index give other clips."""
TRUTH = "truth"
"""Folder of the ground truth, one npz file a clip."""


@dataclass(frozen=True)
class RenderReport:
    """Counts of one call: clips rendered now, and all rows of the data set with twins."""

    rendered: int
    kept: int
    seconds: float


class _Video(TypedDict):
    """Sizes of a clip: the arguments of `make_clips`."""

    size: int
    frames: int
    crop_scale: float
    full_size: int
    crop_kind: NotRequired[CropKind]


@dataclass(frozen=True)
class _EncodedPair:
    """One clip and its twin as a worker returns them: encoded rows and truth files."""

    source: str
    rows: tuple[dict[str, Any], dict[str, Any]]
    truth: tuple[bytes, bytes]
    worker: str
    seconds: float


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


def _render_pair(seed: int, index: int, video: _Video) -> _EncodedPair:
    begin = time.monotonic()
    pair = next(make_clips(seed, [index], **video))
    return _EncodedPair(
        source=pair.clip.source,
        rows=(to_row(pair.clip), to_row(pair.twin)),
        truth=(truth_bytes(pair, twin=False), truth_bytes(pair, twin=True)),
        worker=f"pid-{os.getpid()}",
        seconds=time.monotonic() - begin,
    )


def _render_pairs(seed: int, indices: list[int], video: _Video, workers: int) -> Iterator[_EncodedPair]:
    """Yield results in the order of `indices`, so shards do not depend on the number of workers."""
    if workers == 1:
        for index in indices:
            yield _render_pair(seed, index, video)
        return
    # The workers then read the cache instead of parsing the avatar at the same time.
    load_assets()
    with renderers(workers) as pool:
        waiting = [pool.submit(_render_pair, seed, index, video) for index in indices]
        for future in waiting:
            yield future.result()


def render_dataset(
    recipe: Recipe,
    out: str | Path,
    *,
    clips: int,
    seed: int = 0,
    first: int = 0,
    workers: int | None = None,
    full_size: int = 256,
    on_progress: Report | None = None,
) -> RenderReport:
    """Render clips `first .. first + clips - 1` and a twin of each into the data set OUT.

    OUT gets shards, manifest and ledger, and truth/<clip_id>.npz. A further call with the same or more
    clips renders only the missing ones. Rows are the same at any number of workers.

    Args:
        recipe: recipe whose `video.size`, `video.clip_frames`, `video.crop` and `video.crop_scale` are used.
        first: index of the first clip; FIRST_HELD_OUT (1,000,000) and above is reserved for evaluation.
        workers: number of processes; by default one per core.
        on_progress: callback that receives (clips done, all clips).

    Raises:
        UserError: OpenGL or the avatar's data is missing, OUT holds another data set, or the disk is full.
    """
    begin = time.monotonic()
    if clips < 1:
        raise UserError(f"clips is {clips}: at least one is needed")
    if first < 0 or (first < FIRST_HELD_OUT < first + clips):
        raise UserError(
            f"clips {first} to {first + clips - 1}: stay within 0..{FIRST_HELD_OUT - 1}, or start at {FIRST_HELD_OUT}"
        )
    workers = workers or len(os.sched_getaffinity(0))
    video = _Video(
        size=recipe.video.size,
        frames=recipe.video.clip_frames,
        crop_scale=recipe.video.crop_scale,
        full_size=full_size,
    )
    # Data sets of earlier versions do not name the crop, which is the template.
    if recipe.video.crop != "template":
        video["crop_kind"] = recipe.video.crop
    settings = {"renderer": VERSION, "seed": seed, "first": first, **video}
    with ShardWriter(out, kind="clips", recipe=settings) as writer:
        ledger = Ledger(out)
        folder = writer.folder / TRUTH
        indices = [i for i in range(first, first + clips) if not ledger.settled(f"render:{seed}/{i}")]
        done = clips - len(indices)
        if on_progress is not None:
            on_progress(done, clips)
        waiting: list[LedgerRow] = []
        for pair in _render_pairs(seed, indices, video, min(workers, max(1, len(indices)))):
            for row, truth in zip(pair.rows, pair.truth, strict=True):
                (folder / f"{row['clip_id']}.npz").write_bytes(truth)
                writer.add_row(row)
                waiting.append(
                    LedgerRow(
                        input=pair.source,
                        clip_id=row["clip_id"],
                        status="kept",
                        worker=pair.worker,
                        seconds=pair.seconds / 2,
                    )
                )
            if len(waiting) >= writer.rows_per_shard:
                _settle(writer, ledger, waiting)
            done += 1
            if on_progress is not None:
                on_progress(done, clips)
        _settle(writer, ledger, waiting)
        kept = len(writer)
    return RenderReport(rendered=len(indices), kept=kept, seconds=time.monotonic() - begin)


def _settle(writer: ShardWriter, ledger: Ledger, waiting: list[LedgerRow]) -> None:
    """Write shards first and the ledger second, so every ledger row "kept" has its clip."""
    writer.flush()
    for row in waiting:
        ledger.add(row)
    waiting.clear()
    ledger.flush()
