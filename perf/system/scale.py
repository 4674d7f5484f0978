"""`python -m perf scale`: seconds a clip of the files of a data set, from 10^4 to 10^6 clips.

The real classes write and read a data set of synthetic facts: `Sources` and `Ledger` record sources, `DataSet` commits
shards, a second driver opens the set and looks for open sources, `plan_units` plans pairs, and a rank of training
reads the manifest and orders samples. The shards are empty files that have the sizes of the manifest and take no
space. Each part runs in a process of its own, which reports its peak memory. Seconds a clip are processor seconds,
which other load on a shared machine affects less; `open_seconds` is the time of the clock.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""Folder of the checkout."""
RESULT = ROOT / "docs" / "results" / "scale.json"
"""Default result file."""
PER_SHARD = 32
"""Clips of a shard, which is one commit."""
PER_SOURCE = 8
"""Clips of a source."""
PER_SPEAKER = 200
"""Clips of a speaker."""
FRAMES = 77
"""Frames of a clip, as in the recipe xdub-1b."""
BYTES = 8_000_000
"""Bytes of a clip in its shard."""
FLAT = 1.3
"""Largest accepted ratio of the seconds a clip between the largest and the smallest set."""
OPEN_SECONDS, OPEN_MB = 20.0, 1024
"""Bounds of the start of a rank's training: seconds, and MB of its process."""
DRIVER_BYTES = 4096
"""Bound of the bytes a clip that the driver receives from a worker."""


def facts_of(number: int, clips: int) -> Any:
    """Return the facts of shard ``number`` of a set of ``clips`` clips, as a worker sends them."""
    from xdub.data.manifest_files import ShardFacts
    from xdub.seeding import stable_seed

    rows = range(number * PER_SHARD, min(clips, (number + 1) * PER_SHARD))
    digest = "".join(f"{stable_seed('shard', number, part):016x}" for part in range(4))
    return ShardFacts(
        file=f"shard-{digest[:16]}.parquet",
        rows=len(rows),
        bytes=BYTES * len(rows),
        sha256=digest,
        kind="clips",
        ids=tuple(f"{stable_seed('clip', row):016x}" for row in rows),
        num_frames=(FRAMES,) * len(rows),
        speakers=tuple(f"speaker {row // PER_SPEAKER}" for row in rows),
        twins=(None,) * len(rows),
    )


def sources_of(facts: Any, number: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield (source, ledger rows) of a shard's clips."""
    from xdub.data.ledger import LedgerRow

    scores = {"sharpness": 41.5, "sharpness.least": 20.0, "offset": 1.0, "offset.most": 6.0}
    for start in range(0, facts.rows, PER_SOURCE):
        name = f"/data/talks/{number // 100:04d}/{number:06d}-{start}.mp4"
        ids = facts.ids[start : start + PER_SOURCE]
        yield (
            name,
            [
                LedgerRow(input=name, clip_id=i, status="kept", worker="host:1", seconds=2.5, scores=scores)
                for i in ids
            ],
        )


def add(folder: Path, clips: int) -> dict[str, float]:
    """Record sources and commit shards; return seconds of {add, commit} and the driver's bytes a clip."""
    import pickle

    from xdub.data.dataset import DataSet
    from xdub.data.sources import Source, Sources
    from xdub.files.storage import locate

    seconds = {"add": 0.0, "commit": 0.0}
    received = 0
    with DataSet(folder, kind="clips", recipe={"synthetic": clips}) as dataset:
        sources = Sources(locate(folder), dataset.ledger)
        for number in range(-(-clips // PER_SHARD)):
            facts = facts_of(number, clips)
            results = list(sources_of(facts, number))
            with (folder / facts.file).open("wb") as file:
                file.truncate(facts.bytes)
            received += len(pickle.dumps((facts, results)))
            begin = time.process_time()
            for name, rows in results:
                state = ((name, 10_000_000 + number, number),)
                source = Source(name=name, input=name, files=(name,), state=state, content=facts.sha256)
                sources.record(source)
                for row in rows:
                    dataset.ledger.add(row)
            sources.flush()
            middle = time.process_time()
            dataset.commit([facts])
            seconds["commit"] += time.process_time() - middle
            seconds["add"] += middle - begin
    return seconds | {"driver_bytes": received / clips}


def resume(folder: Path, clips: int) -> dict[str, float]:
    """Open the set as a second driver and look for open sources; return its seconds."""
    from xdub.data.dataset import DataSet
    from xdub.data.sources import Source, Sources
    from xdub.files.storage import locate

    names = [
        name
        for number in range(-(-clips // PER_SHARD))
        for name, _ in sources_of(facts_of(number, clips), number)
    ]
    begin = time.process_time()
    with DataSet(folder, kind="clips") as dataset:
        sources = Sources(locate(folder), dataset.ledger)
        open_sources = sum(not sources.settled(Source(name=name, input=name)) for name in names)
    seconds = time.process_time() - begin
    assert not open_sources and len(dataset) == clips
    return {"resume": seconds}


def plan(folder: Path, clips: int) -> dict[str, float]:
    """Plan the pairs of the set; return the seconds."""
    from xdub.config import load_recipe
    from xdub.data.manifest import read_manifest
    from xdub.pairs.units import plan_units, read_entries

    recipe = load_recipe("tiny", ["pairs.render_twins=0"])
    begin = time.process_time()
    entries = read_entries(read_manifest(folder))
    units = plan_units(entries, recipe, generator_digest="0" * 16, seed=0)
    seconds = time.process_time() - begin
    assert sum(len(unit.jobs) for unit in units) == clips
    return {"plan": seconds}


def start(folder: Path, clips: int) -> dict[str, float]:
    """Read the manifest and order the samples as a rank does; return the seconds until its first samples."""
    from xdub.data.sample_order import sample_order

    begin, begin_wall = time.process_time(), time.monotonic()
    order = sample_order([folder], phase="generator", window=FRAMES, seed=0, held_out=0.05)
    refs = [order.at(position)[1] for position in range(64)]
    names = [order.clip_id(ref) for ref in refs]
    digest = order.digest
    seconds, wall = time.process_time() - begin, time.monotonic() - begin_wall
    assert len(set(names)) == 64 and digest and len(order) + len(order.held_out_rows) == clips
    return {"open": wall, "open_cpu": seconds}


PARTS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "add": add,
    "resume": resume,
    "plan": plan,
    "start": start,
}
"""Parts of a measurement, each of which runs in a process of its own."""


def run_part(name: str, folder: Path, clips: int) -> dict[str, float]:
    """Run a part in this process; return its numbers, its peak memory in MB and its memory before the part."""
    before = _memory_mb("VmRSS")
    numbers = PARTS[name](folder, clips)
    return numbers | {"peak_mb": _memory_mb("VmHWM"), "before_mb": before}


def _memory_mb(field: str) -> float:
    """Return a field of /proc/self/status, whose peak leaves out the parent process, unlike that of `getrusage`."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def measure(clips: int) -> dict[str, Any]:
    """Measure a set of ``clips`` clips in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="xdub-perf-scale-") as scratch:
        folder = Path(scratch) / "data"
        results = {name: _in_process(name, folder, clips) for name in PARTS}
        small = {name: len(list((folder / name).iterdir())) for name in ("manifest", "ledger", "sources")}
        stored = sum(
            path.stat().st_size
            for name in ("manifest", "ledger", "sources")
            for path in (folder / name).iterdir()
        )
    seconds = {**results["add"], **results["resume"], **results["plan"]}
    return {
        "clips": clips,
        "seconds_per_clip": {name: seconds[name] / clips for name in ("add", "commit", "resume", "plan")},
        "open_seconds": round(results["start"]["open"], 3),
        "open_cpu_seconds": round(results["start"]["open_cpu"], 3),
        "peak_mb": round(results["start"]["peak_mb"], 1),
        "driver_bytes_per_clip": round(results["add"]["driver_bytes"], 1),
        "process_mb": {name: round(result["peak_mb"], 1) for name, result in results.items()},
        "parts": small,
        "stored_bytes_per_clip": round(stored / clips, 1),
    }


def _in_process(name: str, folder: Path, clips: int) -> dict[str, float]:
    command = [sys.executable, "-m", "perf", "scale", "--part", name, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--clips", str(clips)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def verdicts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the growth of the seconds a clip from the smallest to the largest set, and whether the bounds hold."""
    least, most = rows[0], rows[-1]
    growth = {
        name: most["seconds_per_clip"][name] / value for name, value in least["seconds_per_clip"].items()
    }
    return {
        "growth": {name: round(value, 3) for name, value in growth.items()},
        "flat": all(value <= FLAT for value in growth.values()),
        "start": most["open_seconds"] < OPEN_SECONDS and most["peak_mb"] < OPEN_MB,
        "driver": all(row["driver_bytes_per_clip"] < DRIVER_BYTES for row in rows),
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as text."""
    names = ("add", "commit", "resume", "plan")
    lines = [f"{'clips':>9s}" + "".join(f"{name:>12s}" for name in names) + f"{'open':>9s}{'peak':>10s}"]
    for row in result["rows"]:
        cells = "".join(f"{1e6 * row['seconds_per_clip'][name]:>9.1f} us" for name in names)
        lines.append(f"{row['clips']:>9d}{cells}{row['open_seconds']:>7.2f} s{row['peak_mb']:>7.0f} MB")
    growth = ", ".join(f"{name} {value:.2f}x" for name, value in result["growth"].items())
    return "\n".join([*lines, f"seconds a clip from the first to the last row: {growth}"])


def add_parser(commands: Any) -> None:
    """Add the command `scale` and its options."""
    parser = commands.add_parser(
        "scale", help="seconds a clip of a data set's files, from 10^4 to 10^6 clips"
    )
    parser.add_argument("--clips", default="10000,100000,1000000", help="numbers of clips, with commas")
    parser.add_argument("--part", choices=PARTS, help="run one part in --folder and print its numbers")
    parser.add_argument("--folder", type=Path, help="data set of --part")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=RESULT, help=f"write a result file (default {RESULT.name})"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the measurement; return 0 if every bound holds."""
    counts = [int(text) for text in args.clips.split(",")]
    if args.part:
        print(json.dumps(run_part(args.part, args.folder, counts[0])))
        return 0
    # torch, which the parts do not need, takes longer to load than a small set takes to measure.
    from perf.environment import environment

    load = os.getloadavg()[0]
    rows = [measure(clips) for clips in counts]
    bounds = verdicts(rows)
    result = {
        "command": "python -m perf " + " ".join(sys.argv[1:]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "load_before": round(load, 2),
        "clips_per_shard": PER_SHARD,
        "clips_per_source": PER_SOURCE,
        "clips_per_speaker": PER_SPEAKER,
        "rows": rows,
        **bounds,
    }
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if bounds["flat"] and bounds["start"] and bounds["driver"] else 1
