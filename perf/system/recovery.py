"""`python -m perf recovery`: kill a training run in every way and compare it with an undisturbed one.

The runs are real runs of `xdub train generator --recipe tiny` with real kills. For every ZeRO stage the curve of two
workers is compared with that of a single process. Then worker, data actor, controller and driver are killed with -9 at
random steps, a worker is paused (a hang), and one long run survives five kills. Losses and sample ids must be identical
to the bit.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.environment import environment
from perf.system.victims import KINDS, Run
from xdub.data.stream import FIRST_STEPS

SETTINGS = ["train.global_batch=8", "train.micro_batch=4", "train.log_every=1", "train.num_threads=1"]
"""Settings of every run."""
EVERY = 5
"""Steps between checkpoints."""


def add_parser(commands: Any) -> None:
    """Add the command `recovery` and its options."""
    parser = commands.add_parser("recovery", help="kill a training run in every way", description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="steps of a run (default 40)")
    parser.add_argument("--stages", type=int, nargs="*", default=[0, 1, 2, 3], help="ZeRO stages to compare")
    parser.add_argument(
        "--kills", nargs="*", default=[*KINDS, "hang"], help="kinds of processes to kill, one run each"
    )
    parser.add_argument("--storm", type=int, default=150, help="steps of the run with five kills; 0 = none")
    parser.add_argument("--zero-stage", type=int, default=2, help="stage of the killed runs")
    parser.add_argument("--data", type=Path, help="data set of clips; rendered if not given")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run all scenarios, print and write the result; return 1 if a killed run differs."""
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        bench = Bench(Path(folder), args)
        result = {
            "command": " ".join(["python -m perf", *sys.argv[1:]]),
            "environment": environment(),
            "settings": [*SETTINGS, f"train.checkpoint_every={EVERY}", f"train.steps={args.steps}"],
            "stages": bench.stages(),
            "kills": bench.kills(),
            "storm": bench.storm() if args.storm else None,
        }
    print_tables(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(row["identical"] for row in result["kills"]) else 1


class Bench:
    """Runs of one call, in a folder of their own."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self._folder, self._args = folder, args
        self._random = random.Random(args.seed)
        self._data = args.data or render(folder / "clips")
        self._undisturbed: dict[tuple[int, int, int], Run] = {}

    def stages(self) -> list[dict[str, Any]]:
        """Compare every ZeRO stage with two workers with one process without sharding."""
        if not self._args.stages:
            return []
        single = self.undisturbed(0, workers=1).losses()
        rows = []
        for stage in self._args.stages:
            losses = self.undisturbed(stage).losses()
            differences = [abs(a - b) / b for a, b in zip(losses, single, strict=True)]
            first = self.undisturbed(self._args.stages[0])
            rows.append(
                {
                    "stage": stage,
                    "workers": 2,
                    "largest_relative_difference_to_one_process": max(differences),
                    f"bit_equal_to_stage_{self._args.stages[0]}": first.curve()
                    == self.undisturbed(stage).curve(),
                }
            )
            print_progress(f"ZeRO-{stage}: {max(differences):.1e} from a single process")
        return rows

    def kills(self) -> list[dict[str, Any]]:
        """Run one scenario for each kind of kill."""
        return [self._killed(kind) for kind in self._args.kills]

    def _killed(self, kind: str) -> dict[str, Any]:
        whole = self.undisturbed(self._args.zero_stage)
        moment = self._random.randint(3, self._args.steps - 5) + self._random.random()
        extra = ["train.hang_seconds=10"] if kind == "hang" else []
        run = self._start(f"kill-{kind.replace(' ', '-')}", self._args.zero_stage, 2, self._args.steps, extra)
        # A small data set is read soon after the start, and then its actor ends.
        if kind == "data actor":
            killed_at, reached = run.kill(kind, seconds=300.0), run.step()
            # The first step whose data come from an actor.
            first = FIRST_STEPS + 1
            return self._row(
                kind, run, whole, killed_at, reached=reached, until=first, usual=median_step(whole)
            )
        run.wait_for_step(int(moment))
        ids, usual, attempt = run.run_ids(), median_step(run), run.attempts()
        time.sleep(moment % 1 * usual)
        reached = run.step()
        if kind == "hang":
            killed_at = time.monotonic()
            run.stop("worker")
        else:
            killed_at = run.kill(kind)
        # The group may commit more steps before it ends, so only the next attempt's steps count.
        run.wait_for_attempt(attempt + 1)
        # One step may already have been computed before the kill.
        until = reached + 2
        return self._row(kind, run, whole, killed_at, reached=reached, until=until, usual=usual, ids=ids)

    def _row(
        self,
        kind: str,
        run: Run,
        whole: Run,
        killed_at: float,
        *,
        reached: int,
        until: int,
        usual: float,
        ids: dict | None = None,
    ) -> dict[str, Any]:
        """Finish the run and compare it with the undisturbed one.

        Seconds lost run from the kill at step `reached` until step `until` or, if the next attempt starts with a later
        step, until that step, less the usual time of these steps.
        """
        seconds = run.wait_for_step(until) - killed_at
        lost = seconds - (run.step() - reached) * usual
        ids = ids or run.run_ids()
        run.finish()
        row = {
            "kind": kind,
            "step": reached,
            "seconds_lost": round(max(lost, 0.0), 1),
            "identical": run.curve() == whole.curve(),
            "each_step_once": [s for s, *_ in run.curve()] == list(range(1, self._args.steps + 1)),
            "same_mlflow_runs": run.run_ids() == ids,
            "attempts": run.attempts(),
            "submitted": run.submitted,
        }
        print_progress(
            f"{kind} killed at step {reached}: {row['seconds_lost']} s lost, identical: {row['identical']}"
        )
        return row

    def storm(self) -> dict[str, Any]:
        """Kill five processes in one run."""
        steps = self._args.storm
        run = self._start("storm", self._args.zero_stage, 2, steps)
        begin = time.monotonic()
        for number in range(5):
            run.wait_for_step(round(steps * (number + 0.7) / 6))
            run.kill(["worker", "controller", "worker", "driver", "worker"][number])
            time.sleep(1)
        run.finish()
        goodput = run.metrics("perf/goodput")[-1]
        print_progress(f"five kills in {steps} steps: goodput {goodput:.1%}")
        return {
            "steps": steps,
            "kills": 5,
            "seconds": round(time.monotonic() - begin, 1),
            "goodput": round(goodput, 4),
            "each_step_once": [s for s, *_ in run.curve()] == list(range(1, steps + 1)),
            "attempts": run.attempts(),
        }

    def undisturbed(self, stage: int, workers: int = 2) -> Run:
        """Return a finished run without kills; every combination runs once."""
        key = (stage, workers, self._args.steps)
        if key not in self._undisturbed:
            run = self._start(f"whole-zero{stage}-{workers}", stage, workers, self._args.steps)
            run.finish()
            self._undisturbed[key] = run
        return self._undisturbed[key]

    def _start(self, name: str, stage: int, workers: int, steps: int, extra: list[str] | None = None) -> Run:
        settings = [
            *SETTINGS,
            f"train.zero_stage={stage}",
            f"train.workers={workers}",
            f"train.steps={steps}",
        ]
        settings += [f"train.checkpoint_every={EVERY}", *(extra or [])]
        return Run(self._folder / name, self._data, settings)


def render(out: Path, clips: int = 16) -> Path:
    """Render a small data set."""
    print_progress(f"rendering {clips} clips")
    xdub = Path(sys.executable).with_name("xdub")
    subprocess.run(
        [str(xdub), "render", "--out", str(out), "--clips", str(clips)], check=True, capture_output=True
    )
    return out


def median_step(run: Run) -> float:
    """Return the median seconds of a step, from the journal."""
    return statistics.median(run.metrics("perf/step_seconds") or [0.0])


def print_progress(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_tables(result: dict[str, Any]) -> None:
    """Print the result for the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    for title, rows in (("two workers against one process", result["stages"]), ("kill -9", result["kills"])):
        if rows:
            table = Table(title=title, title_justify="left")
            for name in rows[0]:
                table.add_column(name.replace("_", " "), justify="right")
            for row in rows:
                values = [f"{v:.1e}" if isinstance(v, float) and v < 1e-2 else str(v) for v in row.values()]
                table.add_row(*values)
            console.print(table)
    if result["storm"]:
        console.print("five kills in one run:", result["storm"])
