"""A data set of rendered heads: clip shards with twins, ground truth beside the shards, and a ledger for resuming."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xdub.config import Recipe
from xdub.data.dataset import DataSet
from xdub.data.ledger import Counts
from xdub.data.run_line import RunLine
from xdub.errors import UserError
from xdub.files.storage import Location, locate
from xdub.pool import WorkerPool, Workers, pool_size
from xdub.progress import Report
from xdub.render.assets import load_assets
from xdub.render.clips import FIRST_HELD_OUT
from xdub.render.worker import RenderUnit, RenderWorker, Video, clip_input, failed_block

VERSION = 1
"""Version of pictures and speech; raise it when the same seed and index give other clips."""
BLOCK = 8
"""Clips of a unit; with their twins they are the 16 rows of a shard."""


@dataclass(frozen=True)
class RenderReport:
    """Counts of one call: clips rendered now, and all rows of the data set with twins."""

    rendered: int
    kept: int
    seconds: float


def render_dataset(
    recipe: Recipe,
    out: str | Path | Location,
    *,
    clips: int,
    seed: int = 0,
    first: int = 0,
    workers: int | Workers | None = None,
    full_size: int = 256,
    on_progress: Report | None = None,
) -> RenderReport:
    """Render clips `first .. first + clips - 1` and a twin of each into the data set OUT.

    OUT, a folder or a URI, gets shards, manifest and ledger, and truth/<clip_id>.npz. A further call with the same or
    more clips renders only the missing ones. Rows and shards are the same at any number of workers.

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
    video = Video(
        size=recipe.video.size,
        frames=recipe.video.clip_frames,
        crop_scale=recipe.video.crop_scale,
        full_size=full_size,
    )
    # Data sets of earlier versions do not name the crop, which is the template.
    if recipe.video.crop != "template":
        video["crop_kind"] = recipe.video.crop
    settings = {"renderer": VERSION, "seed": seed, "first": first, **video}
    out = locate(out)
    with DataSet(out, kind="clips", recipe=settings) as data:
        units, ledger = [], data.ledger
        for number, begin_of_block in enumerate(range(first, first + clips, BLOCK)):
            block = range(begin_of_block, min(begin_of_block + BLOCK, first + clips))
            missing = tuple(index for index in block if not ledger.settled(clip_input(seed, index)))
            units += [RenderUnit(number, missing)] if missing else []
        rendered = sum(len(unit.indices) for unit in units)
        line = RunLine(total=clips, report=on_progress)
        counts, seconds = Counts(), 0.0
        line.begin(clips - rendered, counts, seconds)
        # The renderer runs on processors (llvmpipe), so no GPU is reserved.
        size = pool_size(workers, len(units))
        local = not isinstance(workers, Workers) and size.most == 1
        if units:
            # The workers then read the cache instead of parsing the avatar at the same time.
            load_assets()
        pool = WorkerPool(
            RenderWorker,
            {"seed": seed, "video": video, "out": out, "alone": local},
            size,
            name="render",
            failed=partial(failed_block, seed),
            local=local,
            keep_ray=False,
            on_state=line.set_pool,
        )
        for unit, outcome in zip(units, pool.outcomes(units), strict=True):
            data.commit(outcome.shards, outcome.ledger)
            for row in outcome.ledger:
                counts.add(row)
                seconds += row.seconds
                if row.status == "failed":
                    raise UserError(f"{row.input}: {row.message}; run the same command again to continue")
            line.add(len(unit.indices), counts, seconds)
        kept = len(data)
    return RenderReport(rendered=rendered, kept=kept, seconds=time.monotonic() - begin)
