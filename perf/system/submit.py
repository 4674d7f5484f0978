"""`python -m perf submit`: run a whole bootstrap as a job on a Ray cluster of two machines, stopped once and resumed.

The cluster has a head with dashboard and token and a second raylet; an MLflow server runs beside it. `xdub submit
render` renders the data, `xdub submit bootstrap` is stopped in its first phase, and the same submission is resumed to
the end. Then MLflow must hold one parent run with a child for every stage, all finished, and the dashboard three jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perf.environment import environment
from perf.system.local_cluster import LocalCluster
from perf.system.mlflow_server import MlflowServer
from perf.system.recovery import print_progress
from xdub.bootstrap.bootstrap import stage_names
from xdub.config import load_recipe
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.train.state.committed_steps import last_record

STAGES = ("generator", "pairs", "editor", "lip", "texture")
"""Stages that have a run of their own."""
STEPS = 120
"""Steps of the generator: enough that it still trains when the stop, which starts a Python, arrives."""
SETTINGS = [f"phases.generator.steps={STEPS}", "phases.editor.steps=6", "phases.lip.steps=6"]
# The stop writes the only checkpoint, so the run continues from it.
SETTINGS += ["phases.texture.steps=6", "train.checkpoint_every=1000"]
SETTINGS += ["train.global_batch=4", "train.micro_batch=4", "train.sample_every=0"]


def add_parser(commands: Any) -> None:
    """Add the command `submit` and its options."""
    parser = commands.add_parser("submit", help="bootstrap as a job on a local cluster", description=__doc__)
    parser.add_argument("--clips", type=int, default=4, help="clips to render (each has a twin)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the scenario, print and write the result; return 1 if a requirement fails."""
    machine = environment()
    with tempfile.TemporaryDirectory(prefix="submit-") as name:
        folder = Path(name)
        server = MlflowServer(folder / "mlflow")
        server.start()
        try:
            server.wait()
            with LocalCluster(folder / "cluster") as cluster:
                result = _scenario(cluster, server, folder, args.clips)
        finally:
            server.kill()
    result |= {"command": " ".join(["python -m perf", *sys.argv[1:]]), "environment": machine}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    wrong = _wrong(result)
    for line in wrong:
        print(f"FAILED REQUIREMENT: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _wrong(result: dict[str, Any]) -> list[str]:
    """Return the requirements that the result does not meet."""
    must = {
        "bundle": result["bundle"],
        "one parent, a child for each stage, all finished": result["runs"]
        == dict.fromkeys(("parent", *STAGES), "FINISHED"),
        "three jobs": [job["status"] for job in result["jobs"]] == ["SUCCEEDED", "STOPPED", "SUCCEEDED"],
        "every step once, in two attempts": result["generator"]["each_once"]
        and result["generator"]["attempts"] == [1, 2],
        "no step lost by the stop": result["generator"]["continued_at"]
        == result["generator"]["stopped_at"] + 1,
        "the log reports every stage": [*result["seconds_per_stage"]] == [*STAGES, "bundle"],
    }
    return [requirement for requirement, holds in must.items() if not holds]


def _scenario(cluster: LocalCluster, server: MlflowServer, folder: Path, clips: int) -> dict[str, Any]:
    data, out = folder / "ds", folder / "run"
    seconds = {"render": _xdub(cluster, "submit", "render", "--out", str(data), "--clips", str(clips))}
    bootstrap = ["submit", "bootstrap", "--recipe", "tiny", "--init", "tiny", "--data", str(data)]
    bootstrap += ["--out", str(out), "--env", f"MLFLOW_TRACKING_URI={server.uri}"]
    for setting in SETTINGS:
        bootstrap += ["--set", setting]
    begin = time.monotonic()
    _xdub(cluster, *bootstrap, "--detach")
    record, end = PhaseFolder(out, "generator").steps, time.monotonic() + 300
    while (last_record(record) or {"step": 0})["step"] < 3:
        if time.monotonic() > end:
            _xdub(cluster, "jobs", "logs", "bootstrap-run-1")
            raise RuntimeError("the job does not train")
        time.sleep(0.1)
    seconds["submission to step 3"] = time.monotonic() - begin
    seconds["stop"] = _xdub(cluster, "jobs", "stop", "bootstrap-run-1")
    names, stages = stage_names(load_recipe("tiny", SETTINGS)), {}
    begin = time.monotonic()
    for line in _lines(cluster, *bootstrap):
        # A line of the followed log: "1/6 train the generator: done in 31 s".
        if done := re.fullmatch(r"(\d)/\d .+: done in (\d+) s", line):
            stages[names[int(done[1]) - 1]] = int(done[2])
    seconds["resumed to the end"] = time.monotonic() - begin
    rows = list(read_lines(record))
    if {row["attempt"] for row in rows} != {1, 2}:
        raise RuntimeError("the generator finished before the stop arrived: increase STEPS")
    _, body = cluster.get("/api/jobs/", cluster.headers)
    jobs = sorted(json.loads(body), key=lambda job: job["start_time"])
    shown = [{"id": j["submission_id"], "status": j["status"]} for j in jobs if j["submission_id"]]
    return {
        "machines": 2,
        "settings": SETTINGS,
        "clips": clips,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_per_stage": stages,
        "generator": {
            "steps": len(rows),
            "each_once": [row["step"] for row in rows] == [*range(1, STEPS + 1)],
            "attempts": sorted({row["attempt"] for row in rows}),
            "stopped_at": max(row["step"] for row in rows if row["attempt"] == 1),
            "continued_at": min(row["step"] for row in rows if row["attempt"] == 2),
        },
        "jobs": shown,
        "runs": _runs(server.uri),
        "bundle": (out / "bundle").is_dir(),
    }


def _xdub(cluster: LocalCluster, *arguments: str) -> float:
    """Run the command; return its seconds."""
    begin = time.monotonic()
    for _ in _lines(cluster, *arguments):
        pass
    return time.monotonic() - begin


def _lines(cluster: LocalCluster, *arguments: str) -> Iterator[str]:
    """Yield the lines that the command prints, at once; copy them to stderr."""
    print_progress(f"xdub {' '.join(arguments[:2])} ...")
    command = [str(Path(sys.executable).with_name("xdub")), *arguments, "--address", cluster.address]
    with subprocess.Popen(
        command, env=os.environ | cluster.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(line)
            yield line.rstrip()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[:3])


def _runs(uri: str) -> dict[str, str]:
    """Return the status of the parent run and of each stage's run."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("xdub")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {"parent": parent.info.status} | {run.data.tags["phase"]: run.info.status for run in children}
