"""`python -m perf submit`: a whole bootstrap as a job on a Ray cluster of two machines, stopped on the way and resumed.

Head with dashboard and token, a second raylet, an MLflow server in a process of its own. `xdub submit render` makes the
data, `xdub submit bootstrap` is stopped in its first phase, and the same submission goes on to the end. Then MLflow
must hold one parent run with a child for every stage, all finished, and the dashboard's jobs page the three jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.environment import environment
from perf.local_cluster import LocalCluster
from perf.mlflow_server import MlflowServer
from perf.recovery import say
from xdub.train.records import last_record

STAGES = ("generator", "pairs", "editor", "lip", "texture")
SETTINGS = ["train.steps=30", "phases.lip.steps=6", "phases.texture.steps=6", "train.checkpoint_every=5"]
SETTINGS += ["train.global_batch=4", "train.micro_batch=4", "train.sample_every=0"]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("submit", help="bootstrap as a job on a local cluster", description=__doc__)
    parser.add_argument("--clips", type=int, default=4, help="clips to render (each has a twin)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(told: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="submit-") as name:
        folder = Path(name)
        server = MlflowServer(folder / "mlflow")
        server.start()
        try:
            server.wait()
            with LocalCluster(folder / "cluster") as cluster:
                result = _scenario(cluster, server, folder, told.clips)
        finally:
            server.kill()
    result |= {"command": " ".join(["python -m perf", *sys.argv[1:]]), "environment": environment()}
    print(json.dumps(result, indent=1))
    if told.json:
        told.json.write_text(json.dumps(result, indent=1) + "\n")
    good = result["bundle"] and result["runs"] == dict.fromkeys(("parent", *STAGES), "FINISHED")
    return (
        0
        if good and [job["status"] for job in result["jobs"]] == ["SUCCEEDED", "STOPPED", "SUCCEEDED"]
        else 1
    )


def _scenario(cluster: LocalCluster, server: MlflowServer, folder: Path, clips: int) -> dict[str, Any]:
    data, out = folder / "ds", folder / "run"
    seconds = {"render": _xdub(cluster, "submit", "render", "--out", str(data), "--clips", str(clips))}
    bootstrap = ["submit", "bootstrap", "--recipe", "tiny", "--init", "tiny", "--data", str(data)]
    bootstrap += ["--out", str(out), "--env", f"MLFLOW_TRACKING_URI={server.uri}"]
    for setting in SETTINGS:
        bootstrap += ["--set", setting]
    _xdub(cluster, *bootstrap, "--detach")
    record, end = out / "generator" / "steps.jsonl", time.monotonic() + 300
    while (last_record(record) or {"step": 0})["step"] < 6:
        if time.monotonic() > end:
            raise RuntimeError("the job does not train")
        time.sleep(0.1)
    seconds["stop"] = _xdub(cluster, "jobs", "stop", "bootstrap-run-1")
    stopped_at = (last_record(record) or {"step": 0})["step"]
    seconds["resumed to the end"] = _xdub(cluster, *bootstrap)
    _, body = cluster.get("/api/jobs/", cluster.headers)
    jobs = sorted(json.loads(body), key=lambda job: job["start_time"])
    shown = [{"id": j["submission_id"], "status": j["status"]} for j in jobs if j["submission_id"]]
    return {
        "machines": 2,
        "settings": SETTINGS,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "stopped_at_step": stopped_at,
        "jobs": shown,
        "runs": _runs(server.uri),
        "bundle": (out / "bundle").is_dir(),
    }


def _xdub(cluster: LocalCluster, *arguments: str) -> float:
    """Seconds that the command took; its output goes to stderr as it comes."""
    say(f"xdub {' '.join(arguments[:2])} ...")
    begin = time.monotonic()
    subprocess.run(
        [str(Path(sys.executable).with_name("xdub")), *arguments, "--address", cluster.address],
        env=os.environ | cluster.environment,
        stdout=sys.stderr,
        check=True,
    )
    return time.monotonic() - begin


def _runs(uri: str) -> dict[str, str]:
    """Status of the parent and of each stage's run below it."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("xdub").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {"parent": parent.info.status} | {run.data.tags["phase"]: run.info.status for run in children}
