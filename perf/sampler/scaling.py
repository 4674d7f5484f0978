"""Processor time and peak memory of the pair factory by number of clips.

Every data set runs in its own process, or with workers on its own Ray. The command

    python -m perf.sampler.scaling DATA GENERATOR OUT THREADS WORKERS

is such a run (0 workers: all in this process); it prints one line of JSON.
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
"""Clips of a unit, small enough that a few clips occupy several workers."""


def measure(
    folder: Path,
    recipe: Any,
    generator: Path,
    sizes: Sequence[int],
    passes: int,
    threads: int,
    workers: int = 0,
) -> dict:
    """Run every data set, of ``sizes`` clips, ``passes`` times in turns; return medians and the lines that fit them."""
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
    medians: list[dict[str, Any]] = []
    for size, runs in rows.items():
        row: dict[str, Any] = {"clips": size, "runs": runs}
        row |= {
            key: statistics.median(run[key] for run in runs)
            for key in ("seconds", "wall_seconds", "peak_mib")
        }
        medians.append(row)
    fits = {key: fit(sizes, [row[key] for row in medians]) for key in ("seconds", "wall_seconds", "peak_mib")}
    return {"sizes": medians, "fits": fits}


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fit y = intercept + slope x by least squares; r2 is the explained share of y's variance."""
    slope, intercept = np.polyfit(x, y, 1)
    residuals = np.asarray(y) - (intercept + slope * np.asarray(x))
    deviations = np.asarray(y) - np.mean(y)
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r2": float(1 - (residuals @ residuals) / (deviations @ deviations)) if deviations.any() else 1.0,
    }


def _write(source: Path, recipe: Any, sets: dict[int, Path]) -> None:
    """Render clips for the largest data set, and write each set from the first of them."""
    from xdub.data.manifest import read_manifest
    from xdub.data.shards import ShardReader, ShardWriter
    from xdub.render.clips import FIRST_HELD_OUT
    from xdub.render.dataset import render_dataset

    # Every clip has a twin, so half as many are rendered.
    render_dataset(recipe, source, clips=-(-max(sets) // 2), seed=11, first=FIRST_HELD_OUT)
    reader = ShardReader(read_manifest(source))
    for size, folder in sets.items():
        with ShardWriter(folder, rows_per_shard=recipe.pairs.batch, kind="clips") as writer:
            for row in range(size):
                writer.add_row(reader.row(row))


def peak_mib(process: int | str) -> float:
    """Return the peak memory of a process in MiB. `ru_maxrss` would start at the parent's memory."""
    (line,) = [x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


class _ActorUsage(threading.Thread):
    """Usage of Ray's workers below this process, sampled inside a `with`.

    Up to `EVERY` seconds of a worker that ends between two samples are lost.
    """

    EVERY = 0.2
    """Seconds between two samples."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._seconds: dict[int, float] = {}
        self._peaks: dict[int, float] = {}

    def run(self) -> None:
        """Sample until the end of the `with`."""
        while not self._done.wait(self.EVERY):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError, ValueError):
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Actor"):
                        self._seconds[process.pid] = sum(process.cpu_times()[:2])
                        self._peaks[process.pid] = peak_mib(process.pid)

    def __enter__(self) -> _ActorUsage:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def figures(self) -> dict[str, Any]:
        """Return seconds, seconds by worker and the largest peak."""
        return {
            "seconds": sum(self._seconds.values()),
            "seconds_by_worker": list(self._seconds.values()),
            "peak_mib": max(self._peaks.values()),
        }


def main(data: str, generator: str, out: str, threads: str, workers: str) -> None:
    """Build pairs of one data set and print the figures as JSON."""
    import torch

    from xdub.config import load_recipe
    from xdub.pairs.factory import build_pairs

    torch.set_num_threads(int(threads))
    count = int(workers)
    # Exact pairs cost nothing to sample, so none are rendered.
    settings = ["pairs.render_twins=0"]
    recipe = load_recipe("tiny", [*settings, f"pairs.batch={POOL_BATCH}"] if count else settings)
    begin = time.process_time()
    with _ActorUsage() as actors:
        report = build_pairs(recipe, generator, data, out, local=not count, workers=max(1, count))
    figures: dict[str, Any] = {
        "inputs": report.inputs,
        "kept": report.counts["kept"],
        "seconds": time.process_time() - begin,
    }
    figures |= {"wall_seconds": report.seconds, "wall_seconds_by_step": report.steps}
    figures |= {"peak_mib": peak_mib("self")}
    if count:
        figures |= {"driver_seconds": figures["seconds"]} | actors.figures()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
