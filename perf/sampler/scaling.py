"""The pair factory on data sets of several sizes, each in a process of its own, or with workers on a Ray of its own:
the processor's seconds and the peak of memory by clips.

    python -m perf.sampler.scaling DATA GENERATOR OUT THREADS WORKERS

is such a run (0 workers: all in this process): it prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from perf.environment import ROOT

POOL_BATCH = 4
"""Clips a unit, so that a few clips are work for several workers."""


def measure(
    folder: Path,
    recipe: Any,
    generator: Path,
    sizes: Sequence[int],
    passes: int,
    threads: int,
    workers: int = 0,
) -> dict:
    """``sizes``: clips of each data set. The line that fits the medians of ``passes``, which take turns."""
    sets = {size: folder / f"clips{size}" for size in sizes}
    if not (folder / "all").exists():
        _write(folder / "all", recipe, sets)
    rows: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for number in range(passes):
        for size, data in sets.items():
            out = folder / f"pairs{size}-{number}-{workers}"
            command = [sys.executable, "-m", "perf.sampler.scaling", data, generator, out, threads, workers]
            done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            rows[size].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {size} clips: {rows[size][-1]}", flush=True)
    told = []
    for size, runs in rows.items():
        row = {"clips": size, "runs": runs}
        row |= {
            key: statistics.median(run[key] for run in runs)
            for key in ("seconds", "wall_seconds", "peak_mib")
        }
        told.append(row)
    fits = {key: fit(sizes, [row[key] for row in told]) for key in ("seconds", "wall_seconds", "peak_mib")}
    return {"sizes": told, "fits": fits}


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Least squares y = intercept + slope x, with the share of y's variance that it explains."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (intercept + slope * np.asarray(x))
    whole = np.asarray(y) - np.mean(y)
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r2": float(1 - (rest @ rest) / (whole @ whole)) if whole.any() else 1.0,
    }


def _write(whole: Path, recipe: Any, sets: dict[int, Path]) -> None:
    """Data sets of the first clips of one that is rendered for the largest."""
    from xdub.data.shards import ShardReader, ShardWriter, read_manifest
    from xdub.render.clips import HELD_OUT
    from xdub.render.dataset import render_dataset

    render_dataset(recipe, whole, clips=-(-max(sets) // 2), seed=11, first=HELD_OUT)  # and a twin of each
    reader = ShardReader(read_manifest(whole))
    for size, folder in sets.items():
        with ShardWriter(folder, rows_per_shard=recipe.pairs.batch, kind="clips") as writer:
            for row in range(size):
                writer.add_row(reader.row(row))


def peak_mib(process: int | str) -> float:
    """Most memory that a process has had. Not `ru_maxrss`, which begins with what the parent had."""
    (line,) = [x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


class _Actors(threading.Thread):
    """What Ray's workers below this process take, looked at until the end of a `with`; one that ends between two looks
    takes up to `EVERY` seconds with it."""

    EVERY = 0.2

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._seconds: dict[int, float] = {}
        self._peaks: dict[int, float] = {}

    def run(self) -> None:
        while not self._done.wait(self.EVERY):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError, ValueError):
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Actor"):
                        self._seconds[process.pid] = sum(process.cpu_times()[:2])
                        self._peaks[process.pid] = peak_mib(process.pid)

    def __enter__(self) -> _Actors:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def told(self) -> dict[str, Any]:
        return {
            "seconds": sum(self._seconds.values()),
            "seconds_by_worker": list(self._seconds.values()),
            "peak_mib": max(self._peaks.values()),
        }


def main(data: str, generator: str, out: str, threads: str, workers: str) -> None:
    import torch

    from xdub.config import load_recipe
    from xdub.pairs.build import build_pairs

    torch.set_num_threads(int(threads))
    count = int(workers)
    settings = ["pairs.render_twins=0"]  # exact pairs cost nothing to sample
    recipe = load_recipe("tiny", [*settings, f"pairs.batch={POOL_BATCH}"] if count else settings)
    begin = time.process_time()
    with _Actors() as actors:
        report = build_pairs(recipe, generator, data, out, local=not count, workers=max(1, count))
    told = {"inputs": report.inputs, "kept": report.counts["kept"], "seconds": time.process_time() - begin}
    told |= {"wall_seconds": report.seconds, "wall_seconds_by_step": report.steps}
    told |= {"peak_mib": peak_mib("self")}
    if count:
        told |= {"driver_seconds": told["seconds"]} | actors.told()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
