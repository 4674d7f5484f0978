"""A data set of rendered heads: clip shards with twins, exact truth beside them, a ledger. Resumes where it stopped."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xdub.config import Recipe
from xdub.data.clip import to_row
from xdub.data.shards import Ledger, LedgerRow, ShardWriter
from xdub.errors import UserError
from xdub.files.atomic import atomic_path
from xdub.progress import Report
from xdub.render.assets import load_assets
from xdub.render.clips import HELD_OUT, RenderedPair, make_clips
from xdub.render.processes import renderers

VERSION = 1  # of what is drawn and said: raise it when the same numbers give other clips
TRUTH = "truth"


@dataclass(frozen=True)
class RenderReport:
    """What a call made. `rendered` counts clips made now, `kept` all rows of the data set (twins included)."""

    rendered: int
    kept: int
    seconds: float


@dataclass(frozen=True)
class _Made:
    """One clip and its twin as a worker hands them back: encoded rows and truth files."""

    source: str
    rows: tuple[dict[str, Any], dict[str, Any]]
    truth: tuple[bytes, bytes]
    worker: str
    seconds: float


def truth_bytes(pair: RenderedPair, *, twin: bool) -> bytes:
    """npz of what the renderer knows and a clip row has no column for.

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


def _make(seed: int, index: int, video: dict[str, Any]) -> _Made:
    begin = time.monotonic()
    pair = next(make_clips(seed, [index], **video))
    return _Made(
        source=pair.clip.source,
        rows=(to_row(pair.clip), to_row(pair.twin)),
        truth=(truth_bytes(pair, twin=False), truth_bytes(pair, twin=True)),
        worker=f"pid-{os.getpid()}",
        seconds=time.monotonic() - begin,
    )


def _made(seed: int, indices: list[int], video: dict[str, Any], workers: int) -> Iterator[_Made]:
    """Results in the order of `indices`, so that shards do not depend on the number of workers."""
    if workers == 1:
        for index in indices:
            yield _make(seed, index, video)
        return
    load_assets()  # parse once, before everybody does
    with renderers(workers) as pool:
        waiting = [pool.submit(_make, seed, index, video) for index in indices]
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

    OUT gets shards and manifest.json, ledger.parquet, and truth/<clip_id>.npz. Called again, or with more clips, it
    goes on from what is there. Rows are the same at any number of workers.

    Args:
        recipe: gives `video.size`, `video.clip_frames`, `video.crop_scale`.
        first: index of the first clip; HELD_OUT (1,000,000) and above is kept for evaluation.
        workers: processes; default: one per core.
        on_progress: called with (clips done, clips in all).

    Raises:
        UserError: no offscreen OpenGL, avatar data missing, OUT holds something else, or the disk is full.
    """
    begin = time.monotonic()
    if clips < 1:
        raise UserError(f"clips is {clips}: at least one is needed")
    if first < 0 or (first < HELD_OUT < first + clips):
        raise UserError(
            f"clips {first} to {first + clips - 1}: stay within 0..{HELD_OUT - 1}, or start at {HELD_OUT}"
        )
    workers = workers or len(os.sched_getaffinity(0))
    video = {
        "size": recipe.video.size,
        "frames": recipe.video.clip_frames,
        "crop_scale": recipe.video.crop_scale,
        "full_size": full_size,
    }
    made_by = {"renderer": VERSION, "seed": seed, "first": first, **video}
    with ShardWriter(out, kind="clips", recipe=made_by) as writer:
        ledger = Ledger(out)
        folder = writer.folder / TRUTH
        folder.mkdir(exist_ok=True)
        indices = [i for i in range(first, first + clips) if not ledger.settled(f"render:{seed}/{i}")]
        done = clips - len(indices)
        if on_progress is not None:
            on_progress(done, clips)
        waiting: list[LedgerRow] = []
        for made in _made(seed, indices, video, min(workers, max(1, len(indices)))):
            for row, truth in zip(made.rows, made.truth, strict=True):
                with atomic_path(folder / f"{row['clip_id']}.npz") as path:
                    path.write_bytes(truth)
                writer.add_row(row)
                waiting.append(
                    LedgerRow(
                        input=made.source,
                        clip_id=row["clip_id"],
                        status="kept",
                        worker=made.worker,
                        seconds=made.seconds / 2,
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
    """Shards first, then the ledger: a row that says "kept" always has its clip."""
    writer.flush()
    for row in waiting:
        ledger.add(row)
    waiting.clear()
    ledger.flush()
