"""`python -m perf elastic`: lose, add and reclaim machines of a Ray cluster while a run trains.

A real Ray cluster of two nodes on this machine runs up to three workers. One node crashes, a new node joins, and
then receives the signal of a reclaimed spot instance. The run must continue with one worker, three, one,
on the same samples.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.environment import environment
from perf.system.recovery import SETTINGS, print_progress, render
from perf.system.victims import Run
from xdub.runtime_env import LOOPBACK, prepare_environment

STEPS_BETWEEN = 4
"""Steps between two events."""
FIXED = [s for s in SETTINGS if "batch" not in s]
"""Settings shared with `perf recovery`."""


def add_parser(commands: Any) -> None:
    """Add the command `elastic` and its options."""
    parser = commands.add_parser(
        "elastic", help="remove machines from a run and add others", description=__doc__
    )
    parser.add_argument("--zero-stage", type=int, default=2)
    parser.add_argument("--data", type=Path, help="data set of clips; rendered if not given")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the scenario, print and write the result; return 1 if the run is not as expected."""
    # Several machines need loopback addresses.
    os.environ[LOOPBACK] = "1"
    prepare_environment()
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="elastic-") as folder:
        data = args.data or render(Path(folder) / "clips")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            result = _scenario(cluster, Path(folder), data, args.zero_stage)
        finally:
            cluster.shutdown()
    result |= {"command": " ".join(["python -m perf", *sys.argv[1:]]), "environment": environment()}
    print(json.dumps(result["events"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["each_step_once"] and result["workers"] == [3, 1, 3, 1] else 1


def _scenario(cluster: Any, folder: Path, data: Path, stage: int) -> dict[str, Any]:
    node = cluster.add_node(num_cpus=2)
    settings = ["train.global_batch=6", "train.micro_batch=1", "train.workers=3", "train.min_workers=1"]
    settings += [f"train.zero_stage={stage}", "train.checkpoint_every=2", "train.steps=1000"]
    run = Run(folder / "run", data, [*FIXED, *settings], address=cluster.address)
    events = []

    def event(description: str, workers: int, attempt: int) -> None:
        """Record the seconds from now until the next attempt's first step."""
        begin, reached = time.monotonic(), run.step()
        run.wait_for_workers(workers, attempt)
        run.wait_for_attempt(attempt)
        events.append(
            {
                "event": description,
                "step": reached,
                "workers": workers,
                "seconds": round(time.monotonic() - begin, 1),
            }
        )
        print_progress(str(events[-1]))
        run.wait_for_step(run.step() + STEPS_BETWEEN)

    run.wait_for_step(STEPS_BETWEEN)
    cluster.remove_node(node, allow_graceful=False)
    event("a node crashed", 1, 2)
    node = cluster.add_node(num_cpus=2)
    event("a node joined", 3, 3)
    for info in node.all_processes["raylet"]:
        # A cloud reclaims a machine with this signal: the node drains before it ends.
        info.process.terminate()
    event("a node is reclaimed", 1, 4)
    run.driver.terminate()
    run.finish()
    record = run.curve()
    return {
        "zero_stage": stage,
        "settings": settings,
        "workers": run.workers(),
        "each_step_once": [step for step, *_ in record] == list(range(1, len(record) + 1)),
        "events": events,
    }
