"""The part of `python -m perf data` about cached latents: one core's seconds and bytes for a sample."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xdub.config import Recipe, inpaints
from xdub.data.batch import RawBatch
from xdub.data.latent_cache.entries import ClipEntries, EntryFile, EntryWriter
from xdub.data.samples import collate
from xdub.data.sound import window_samples
from xdub.files.storage import locate
from xdub.plan.shapes import shapes


def latent_reader(recipe: Recipe, phase: str, *, repeats: int) -> dict[str, Any]:
    """Measure one core's seconds for a cached sample of a phase, and its bytes. The file is in the page cache.

    The latents are random numbers of the recipe's shapes in the cache's format, because no reader knows their values.
    """
    sizes, random = shapes(recipe, phase), np.random.default_rng(0)
    latents = (recipe.codec.channels, sizes.target, sizes.side, sizes.side)
    half = recipe.train.precision == "bf16"

    def numbers(*shape: int) -> np.ndarray:
        values = random.standard_normal(shape, np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16) if half else values

    window = {"z0": numbers(*latents), "audio": numbers(sizes.audio, recipe.audio.dim)}
    window |= {name: random.random((1, *latents[1:])) < 0.2 for name in ("face_mask", "lip_mask")}
    frame = {"z_ref": numbers(latents[0], 1, *latents[2:])}
    if inpaints(phase):
        window["z_mask"] = numbers(*latents)
    else:
        window["z_ref"] = numbers(*latents)
        window["landmarks"] = random.standard_normal((sizes.frames, 68, 2), np.float32)
        window["sound"] = random.standard_normal(window_samples(sizes.frames), np.float32)
    with tempfile.TemporaryDirectory(prefix="xdub-perf-latents-") as folder:
        path = Path(folder) / "entries.parquet"
        writer = EntryWriter(path)
        writer.add(window)
        if inpaints(phase):
            writer.add(frame)
        clip = ClipEntries(clip_id="0", num_frames=sizes.frames, first=0, windows=1, references=1)
        writer.close(data="0", precision=recipe.train.precision, clips=[clip])
        file = EntryFile(locate(path))

        def make_batch() -> RawBatch:
            sample: dict[str, Any] = dict(file.entry(0))
            if inpaints(phase):
                sample |= file.entry(1, ("z_ref",))
            sample |= {"starts": np.zeros(sizes.target, np.int64), "sample_id": "0", "start": 0}
            return collate([sample | {"epoch": 0, "position": 0, "bad": {}}])

        seconds = {"read, window": median_seconds(make_batch, repeats)}
        batch, size = make_batch(), path.stat().st_size
    return {
        "recipe": recipe.name,
        "phase": phase,
        "latents": "cached",
        "window": sizes.frames,
        "seconds": seconds,
        "samples_per_s_core": 1 / sum(seconds.values()),
        "row_bytes": size,
        "batch_bytes": sum(v.nbytes for v in batch.values() if isinstance(v, np.ndarray)),
    }


def latent_lines(sample: dict[str, Any]) -> list[str]:
    """Return a measured sample with its needs as lines of text."""
    need, read = sample["needs"], 1e3 * sample["seconds"]["read, window"]
    return [
        f"\n{sample['recipe']}, {sample['phase']}, cached latents: {sample['row_bytes'] / 1e6:.2f} MB a sample, "
        f"{read:.1f} ms, one core delivers {sample['samples_per_s_core']:.0f} samples/s",
        f"  {need['gpus']} GPUs take {need['samples_per_s']:.2f} samples/s: {need['cores_per_gpu']:.4f} cores a GPU, "
        f"{need['storage_bytes_per_s'] / 1e6:.0f} MB/s from storage",
    ]


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median processor seconds of a call; other load on a shared machine affects them less."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times)
