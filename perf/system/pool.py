"""`python -m perf pool`: scale pair workers with the work, and prove that no kill changes a pair.

A real Ray autoscaler starts machines that are processes on this machine. `xdub pairs --workers 0:3` runs twice on the
same clips: once undisturbed, and once while an actor, a machine and the driver are killed with -9 (the driver is
resubmitted). Three workers must be reached and never exceeded, no machine may remain, and both runs must end with the
same shards, hash for hash, and with one ledger row for every input.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.environment import environment
from perf.system.fake_cloud import FakeCloud, terminate
from perf.system.recovery import print_progress, render
from xdub.report.palette import ACCENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 3
"""Largest number of workers and machines."""
SETTINGS = ["pairs.batch=2", "pairs.render_twins=0.0"]
"""Settings of the runs: two clips per unit, all of them generated."""


def add_parser(commands: Any) -> None:
    """Add the command `pool` and its options."""
    parser = commands.add_parser("pool", help="autoscale pair workers, and kill them", description=__doc__)
    parser.add_argument("--data", type=Path, help="data set of clips; rendered if not given")
    parser.add_argument("--clips", type=int, default=14, help="clips to render (each has a twin)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--plot", type=Path, help="draw the undisturbed run's timeline to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run both scenarios, print and write the result; return 1 if a requirement fails."""
    from xdub.data.manifest import read_manifest

    machine, before = environment(), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="pool-") as name:
        folder = Path(name)
        data = args.data or render(folder / "clips", clips=args.clips)
        clips = read_manifest(data)
        with FakeCloud(folder / "cloud", most=MOST) as cloud:
            undisturbed, timeline = _undisturbed(cloud, data, folder / "undisturbed")
            killed = _killed(cloud, data, folder / "killed", random.Random(args.seed))
        killed |= _compare(folder / "undisturbed", folder / "killed")
    result = {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "environment": machine,
        "load_average": {"before": before, "after": os.getloadavg()},
        "data": {"clips": len(clips.ids), "digest": clips.digest},
        "settings": SETTINGS,
        "undisturbed": undisturbed,
        "killed": killed,
        "timeline": timeline,
    }
    print(json.dumps({"undisturbed": undisturbed, "killed": killed}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.plot:
        figure(timeline, undisturbed).savefig(args.plot)
    same = (
        killed["same_ids"] and killed["same_shards"] and killed["same_ledger"] and killed["every_input_once"]
    )
    scaled = undisturbed["most_workers"] == MOST and not undisturbed["machines_left"]
    return 0 if same and scaled else 1


class Driver:
    """`xdub pairs` in a separate process."""

    def __init__(self, cloud: FakeCloud, data: Path, out: Path) -> None:
        self._command = [str(Path(sys.executable).with_name("xdub")), "pairs", "--recipe", "tiny"]
        self._command += ["--generator", "tiny", "--data", str(data), "--out", str(out)]
        self._command += ["--workers", f"0:{MOST}", "--resource", "pairgen=1"]
        for setting in SETTINGS:
            self._command += ["--set", setting]
        self._environment = os.environ | {"RAY_ADDRESS": cloud.address, "MLFLOW_TRACKING_URI": ""}
        self.out, self._log = out, out.with_suffix(".log")
        self.submit()

    def submit(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def units(self) -> int:
        """Return the number of committed units."""
        return len(list(self.out.glob("shard-*.parquet")))

    def wait(self, reached: Callable[[], bool], event: str, seconds: float = 600.0) -> None:
        """Wait until ``reached``. Raises ``RuntimeError`` if the driver ends first or ``seconds`` pass."""
        end = time.monotonic() + seconds
        while not reached():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"waited for {event}: {self._log.read_text()[-1500:]}")
            time.sleep(0.05)

    def finish(self, seconds: float = 1200.0) -> None:
        """Wait for the driver. Raises ``RuntimeError`` if it fails."""
        if self.process.wait(timeout=seconds) != 0:
            raise RuntimeError(
                f"the driver ended with {self.process.returncode}: {self._log.read_text()[-1500:]}"
            )


class Watch(threading.Thread):
    """Sampler, four times a second, of (seconds, machines, workers, busy workers, units committed)."""

    def __init__(self, cloud: FakeCloud, driver: Driver) -> None:
        super().__init__(daemon=True)
        self._cloud, self._driver, self._done = cloud, driver, threading.Event()
        self._begin = time.monotonic()
        self.samples: list[tuple[float, int, int, int, int]] = []

    def run(self) -> None:
        """Sample until `end`."""
        while not self._done.wait(0.25):
            actors, busy = (len(self._cloud.processes(f"ray::_Actor{call}")) for call in ("", ".run"))
            now = round(time.monotonic() - self._begin, 2)
            self.samples.append((now, len(self._cloud.machines()), actors, busy, self._driver.units()))

    def end(self) -> None:
        """Stop and join the thread."""
        self._done.set()
        self.join()


def _undisturbed(cloud: FakeCloud, data: Path, out: Path) -> tuple[dict[str, Any], list[Any]]:
    driver = Driver(cloud, data, out)
    watch = Watch(cloud, driver)
    watch.start()
    begin = time.monotonic()
    driver.finish()
    ended = time.monotonic() - begin
    while cloud.machines() and time.monotonic() - begin < ended + 120:
        time.sleep(0.2)
    time.sleep(1.0)
    watch.end()
    machines = [(t, n) for t, n, *_ in watch.samples]
    workers = [(t, n) for t, _, n, *_ in watch.samples]

    def first(reached: Callable[[Any], bool]) -> float | None:
        return next((sample[0] for sample in watch.samples if reached(sample)), None)

    def last_seen(counts: list[tuple[float, int]]) -> float:
        """Return the seconds from the driver's end to the last sample above zero; negative: before the end."""
        return round(max((t for t, n in counts if n), default=0) - ended, 1)

    row = {
        "seconds": round(ended, 1),
        "most_machines": max(n for _, n in machines),
        "most_workers": max(n for _, n in workers),
        "machines_at_seconds": {n: first(lambda s, n=n: s[1] >= n) for n in range(1, MOST + 1)},
        "workers_at_seconds": {n: first(lambda s, n=n: s[2] >= n) for n in range(1, MOST + 1)},
        "first_worker_busy_at": first(lambda s: s[3] > 0),
        "first_unit_at": first(lambda s: s[4] > 0),
        "no_worker_after_the_end": last_seen(workers),
        "no_machine_after_the_end": last_seen(machines),
        "machines_left": len(cloud.machines()),
        "units": driver.units(),
    }
    print_progress(str(row))
    return row, watch.samples


def _killed(cloud: FakeCloud, data: Path, out: Path, draw: random.Random) -> dict[str, Any]:
    driver = Driver(cloud, data, out)
    begin, events = time.monotonic(), []

    def note(event: str) -> None:
        events.append({"at": round(time.monotonic() - begin, 1), "killed": event, "units": driver.units()})
        print_progress(str(events[-1]))
        time.sleep(draw.uniform(1.0, 4.0))

    def busy() -> list[Any]:
        return cloud.processes("ray::_Actor.run")

    driver.wait(lambda: driver.units() >= 1 and bool(busy()), "a busy worker")
    time.sleep(draw.uniform(0.0, 2.0))
    (busy() or cloud.processes("ray::_Actor"))[-1].kill()
    note("an actor")
    driver.wait(lambda: driver.units() >= 3 and bool(busy()), "a busy machine")
    cloud.crash()
    note("a machine")
    driver.wait(lambda: driver.units() >= 5 and bool(busy()), "a driver with work")
    terminate(driver.process)
    note("the driver")
    driver.submit()
    driver.finish()
    return {"seconds": round(time.monotonic() - begin, 1), "kills": events}


def _compare(undisturbed: Path, killed: Path) -> dict[str, Any]:
    from xdub.data.ledger import Ledger
    from xdub.data.manifest import read_manifest

    left, right = read_manifest(undisturbed, verify=True), read_manifest(killed, verify=True)
    rows = list(Ledger(killed).rows())
    inputs = Counter(row.input for row in rows)
    facts = [{(r.input, r.status, r.clip_id) for r in Ledger(out).rows()} for out in (undisturbed, killed)]
    return {
        "pairs": len(right.ids),
        "same_ids": left.ids == right.ids,
        "same_shards": {s.file: s.sha256 for s in left.shards} == {s.file: s.sha256 for s in right.shards},
        "same_ledger": facts[0] == facts[1],
        "every_input_once": set(inputs.values()) == {1} and len(facts[0]) == len(rows),
        "status": dict(Counter(row.status for row in rows)),
    }


def figure(timeline: list[Any], row: dict[str, Any]) -> Figure:
    """Draw machines and workers over time, and the remaining work."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    seconds, machines, workers, busy, units = zip(*timeline, strict=True)
    chart = Figure(figsize=(9, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(chart)
    top, bottom = chart.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
    top.fill_between(seconds, [row["units"] - n for n in units], step="post", color="#c9d3f5")
    top.set_ylabel("units left")
    top.yaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.step(seconds, machines, where="post", color="#1f2430", ls="--", label="machines")
    bottom.step(seconds, workers, where="post", color=ACCENT, label="workers")
    bottom.fill_between(seconds, busy, step="post", color=ACCENT, alpha=0.25, label="workers with a unit")
    for axis in (top, bottom):
        axis.axvline(row["seconds"], color="#b8bfcc", lw=1)
    highest = max(*machines, *workers)
    top.annotate(
        "the driver ends ", (row["seconds"], row["units"]), fontsize=8, ha="right", va="top", color="#5b6270"
    )
    bottom.set_yticks(range(highest + 1))
    # Leave room for the legend.
    bottom.set_ylim(0, highest + 0.9)
    bottom.set_xlim(0, seconds[-1])
    bottom.set_xlabel(f"seconds since `xdub pairs --workers 0:{MOST}` was started")
    bottom.legend(frameon=False, fontsize=8, loc="upper left", ncols=3)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return chart
