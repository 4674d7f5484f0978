"""`python -m perf tracking`: prove that an outage of the tracking server costs no time and no number.

The tiny recipe trains in this process, where the sending threads share the interpreter with the loop, against a real
MLflow server that is killed, paused or missing meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.environment import environment
from perf.system.mlflow_server import MlflowServer

RESULT = Path(__file__).parents[2] / "docs/results/tracking_outage.json"
"""Default result file."""
CASES = ("up all the time", "killed -9, restarted", "hangs, goes on", "not there until the end")
"""Scenarios, as the result names them."""
GOAL = 1.5
"""Longest accepted step without the server, relative to the median."""
WARM_UP = 4
"""First steps, which no figure includes."""


@dataclass
class Outage:
    """Outage of the server during one training; training calls it with every progress report."""

    case: str
    """One of CASES."""
    server: MlflowServer
    """Server that is killed or paused."""
    steps: int
    """Steps of the training."""
    down: float | None = None
    """Clock when the server was killed or paused."""
    back: float | None = None
    """Clock when the server was started or continued."""
    up: float | None = None
    """Clock when the server answered again: a server that starts on this machine occupies a core for seconds."""

    def __call__(self, now: Any) -> None:
        """Begin or end the outage when the step for it is reached."""
        if self.case in (CASES[0], CASES[3]):
            return
        killed = self.case == CASES[1]
        if self.down is None and now.step >= self.steps // 4:
            (self.server.kill if killed else self.server.hang)()
            self.down = time.time()
        elif self.down is not None and self.back is None and now.step >= 3 * self.steps // 4:
            self.back = time.time()
            (self.server.start if killed else self.server.go_on)()
        elif self.back is not None and self.up is None and self.server.healthy():
            self.up = time.time()

    def away(self, clock: float) -> bool:
        """Return whether a step that ended at this time ran without the server."""
        if self.case == CASES[3]:
            return True
        return self.down is not None and self.down <= clock <= (self.back or float("inf"))

    def available(self, clock: float) -> bool:
        """Return whether a step that ended at this time ran with a server that had finished starting."""
        if self.case == CASES[3]:
            return False
        return self.down is None or clock < self.down or (self.up is not None and clock > self.up)


def run_case(case: str, data: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Train once; return the figures of the case."""
    from xdub.config import load_recipe
    from xdub.files.lines import read_lines
    from xdub.files.run_folder import RunFolder
    from xdub.tracking.runs import read_state
    from xdub.train.run import train_phase

    out, server = folder / "run", MlflowServer(folder / "server")
    sizes = [
        "train.global_batch=4",
        "train.micro_batch=4",
        "train.log_every=1",
        "train.checkpoint_every=1000",
    ]
    recipe = load_recipe("tiny", [f"train.steps={steps}", *sizes])
    outage = Outage(case, server, steps)
    if case != CASES[3]:
        server.start()
        server.wait()
    try:
        with _tracked_at(server.uri), _timed_journal() as writes:
            result = train_phase("generator", recipe, data, out, local=True, progress=outage)
        assert result.status == "finished"
        if not server.healthy():
            server.start()
            server.wait()
        with _tracked_at(server.uri):
            train_phase("generator", recipe, data, out, local=True, resume=True, progress=outage)
        journal = [r for r in read_lines(result.folder.journal) if r["kind"] == "metrics"]
        kept = _kept(server.uri, read_state(RunFolder(out)))
    finally:
        server.kill()
    clocks = {r["step"]: r["time_ms"] / 1000 for r in journal}
    # The last step writes the checkpoint.
    seconds = {r["step"]: r["values"]["perf/step_seconds"] for r in journal if WARM_UP < r["step"] < steps}
    with_server = [s for step, s in seconds.items() if outage.available(clocks[step])]
    away = [s for step, s in seconds.items() if outage.away(clocks[step])]
    median = statistics.median(with_server or away)
    logged = {(name, r["step"], value) for r in journal for name, value in r["values"].items()}
    return {
        "case": case,
        "steps": steps,
        "median_step_s": round(median, 4),
        "slowest_over_median_with_server": round(max(with_server) / median, 3) if with_server else None,
        "steps_without_server": len(away),
        "median_over_median_without_server": round(statistics.median(away) / median, 3) if away else None,
        "slowest_over_median_without_server": round(max(away) / median, 3) if away else None,
        "seconds_without_server": round(outage.back - outage.down, 1)
        if outage.back and outage.down
        else None,
        "longest_journal_write_ms": round(1000 * max(writes), 3),
        "points": len(logged),
        "points_missing": len(logged - kept["points"]),
        "points_twice": kept["stored"] - len(kept["points"]),
        "runs": kept["runs"],
        "status": kept["status"],
        "registered_versions": kept["versions"],
    }


def _kept(uri: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return the run's points, status, runs and model versions on the server."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(state["phases"]["generator"])
    history = [
        (name, point.step, point.value)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    return {
        "points": set(history),
        "stored": len(history),
        "runs": len(client.search_runs([state["experiment_id"]])),
        "status": run.info.status,
        "versions": len(client.search_model_versions("name = 'xdub-tiny-generator'")),
    }


@contextmanager
def _tracked_at(uri: str) -> Iterator[None]:
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def _timed_journal() -> Iterator[list[float]]:
    """Yield the seconds of every journal write: the training loop's only contact with tracking."""
    from xdub.tracking.journal import Journal

    plain: Callable[..., None] = Journal.metrics
    seconds: list[float] = []

    def timed(self: Journal, step: int, values: dict[str, float]) -> None:
        begin = time.perf_counter()
        plain(self, step, values)
        seconds.append(time.perf_counter() - begin)

    Journal.metrics = timed
    try:
        yield seconds
    finally:
        Journal.metrics = plain


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = (
        "| server | median step | slowest, server there | median, away | slowest, away | journal write, at most "
        "| points missing | twice | runs | status |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )

    def times(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f} x"

    return head + "\n".join(
        f"| {row['case']} | {row['median_step_s']:.3f} s | {times(row['slowest_over_median_with_server'])} "
        f"| {times(row['median_over_median_without_server'])} "
        f"| {times(row['slowest_over_median_without_server'])} ({row['steps_without_server']} steps) "
        f"| {row['longest_journal_write_ms']:.2f} ms | {row['points_missing']} of {row['points']} "
        f"| {row['points_twice']} | {row['runs']} | {row['status']} |"
        for row in rows
    )


def add_parser(commands: Any) -> None:
    """Add the command `tracking` and its options."""
    parser = commands.add_parser(
        "tracking", help="train while the MLflow server is killed, hangs or is missing"
    )
    parser.add_argument("--data", type=Path, help="folder of clips; eight are rendered if not given")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run all cases, print and write the result; return 1 if a number is missing or a step is slower than the goal."""
    from xdub.runtime_env import prepare_environment
    from xdub.tracking.provenance import device_name

    prepare_environment()
    # Read the commit before the tree can change during a long run.
    load, code, rows = os.getloadavg()[0], environment(), []
    with tempfile.TemporaryDirectory() as temporary:
        data = args.data or _render(Path(temporary) / "clips")
        for number, case in enumerate(CASES):
            rows.append(run_case(case, data, Path(temporary) / str(number), args.steps))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr)
    import torch

    result = {
        "command": "python -m perf tracking",
        "machine": f"{os.cpu_count()} x {device_name(torch.device('cpu'))}",
        "load_before": round(load, 2),
        "environment": code,
        "goal": f"no step slower than {GOAL} x the median, nothing missing",
        "rows": rows,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(table(rows))
    return int(any(_too_slow(row, rows[0]) or row["points_missing"] or row["points_twice"] for row in rows))


def _too_slow(row: dict[str, Any], control: dict[str, Any]) -> bool:
    """Return whether the slowest step exceeds the goal, and the slowest step with the server on this machine."""
    usual = row["slowest_over_median_with_server"] or control["slowest_over_median_with_server"]
    return (row["slowest_over_median_without_server"] or 0.0) > max(GOAL, usual)


def _render(folder: Path) -> Path:
    from xdub.config import load_recipe
    from xdub.render.dataset import render_dataset

    render_dataset(load_recipe("tiny"), folder, clips=8)
    return folder
