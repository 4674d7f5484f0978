"""`xdub submit` on a real Ray cluster of two machines with dashboard and token, run as a user runs it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf.system.local_cluster import LocalCluster
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.submit.jobs import STOP_SECONDS
from xdub.train.state.committed_steps import last_record

pytestmark = pytest.mark.slow(seconds=30)
ROOT = Path(__file__).parents[2]
XDUB = str(Path(sys.executable).with_name("xdub"))
SMALL = "train.steps=40 train.checkpoint_every=5 train.global_batch=2 train.micro_batch=2 train.sample_every=0".split()


@contextlib.contextmanager
def without_init() -> Iterator[None]:
    """Inherit orphans of this process's descendants and reap none, as the first process of many containers does."""
    set_child_subreaper = 36
    assert ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(set_child_subreaper, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    # The folder is not below pytest's, because a socket's path may have 107 characters, of which Ray needs 70.
    with tempfile.TemporaryDirectory(prefix="xdub-", ignore_cleanup_errors=True) as folder:
        with without_init(), LocalCluster(Path(folder)) as running:
            yield running


@pytest.fixture(scope="module")
def run(cluster: LocalCluster):
    """Return a function that runs `xdub` with the cluster's token and returns the finished process."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = os.environ | cluster.environment | {"XDUB_ADDRESS": cluster.address} | variables
        return subprocess.run(
            [XDUB, *arguments], env=environment, capture_output=True, text=True, timeout=300
        )

    return call


@pytest.fixture(scope="module")
def changed_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package, change one line of it, and return the folder that holds the copy."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "xdub", folder / "xdub", ignore=shutil.ignore_patterns("__pycache__"))
    entry = folder / "xdub" / "cli" / "job.py"
    before, text = "    reason = version_mismatch()", entry.read_text()
    assert before in text
    entry.write_text(text.replace(before, f'    print("changed code")\n{before}'))
    return folder


@pytest.fixture(scope="module")
def heads(run, changed_code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render clips in a job that is submitted from the changed package, and return their folder."""
    out = tmp_path_factory.mktemp("heads") / "ds"
    result = run(
        *("submit", "render", "--out", str(out), "--clips", "2", "--workers", "1"),
        PYTHONPATH=f"{changed_code}:{ROOT}/kernels",
    )
    assert result.returncode == 0, result.stderr
    assert "changed code" in result.stdout
    assert "submitted render-ds-1" in result.stderr and f"4 rows in {out}" in result.stdout
    return out


def test_a_job_runs_the_code_that_was_sent_and_its_output_is_followed(run, heads, cluster) -> None:
    assert (heads / "manifest.json").is_file()
    listed = run("jobs", "list")
    assert "render-ds-1" in listed.stdout and "SUCCEEDED" in listed.stdout
    assert "render-ds-1 SUCCEEDED" in run("jobs", "status", "render-ds-1").stdout
    assert "4 rows" in run("jobs", "logs", "render-ds-1").stdout
    # The dashboard's page shows the same list.
    status, body = cluster.get("/api/jobs/", cluster.headers)
    (job,) = [job for job in json.loads(body) if job["submission_id"] == "render-ds-1"]
    assert status == 200 and job["entrypoint"].startswith("exec python -m xdub.cli.job render")
    assert len(job["runtime_env"]["py_modules"]) == 2


def test_an_examination_runs_on_a_worker_with_the_code_of_its_own_submission(run, heads) -> None:
    result = run("submit", "doctor", "--recipe", "tiny", "--quick")
    assert result.returncode == 0, result.stdout
    assert "room for" in result.stdout and "linear: 48 channels" in result.stdout
    assert "changed code" not in result.stdout, "the job of `heads` was submitted from a changed package"


def test_a_failed_job_reports_one_line_and_its_exit_code(run, tmp_path) -> None:
    failed = run(
        *("submit", "train", "generator", "--recipe", "tiny", "--data", str(tmp_path / "none")),
        *("--out", str(tmp_path / "broken")),
    )
    assert failed.returncode == 2
    (line,) = [line for line in failed.stdout.splitlines() if "xdub: error" in line]
    assert "none" in line and "Traceback" not in failed.stdout


def test_an_image_with_other_versions_is_refused_before_anything_begins(run, tmp_path) -> None:
    from xdub.submit.versions import versions

    other = json.dumps(versions() | {"torch": "1.0.0"})
    process = subprocess.run(
        [sys.executable, "-m", "xdub.cli.job", "render", "--out", str(tmp_path / "x"), "--clips", "1"],
        env=os.environ | {"XDUB_SUBMITTED": other},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2 and "torch 1.0.0 here" in process.stderr
    assert not (tmp_path / "x").exists()


def test_a_wrong_token_is_refused_and_the_right_one_is_not_shown(run, cluster) -> None:
    refused = run("jobs", "list", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 2 and "refuses our token" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert cluster.environment["RAY_AUTH_TOKEN"] not in refused.stderr + refused.stdout
    assert cluster.get("/api/jobs/")[0] in (401, 403)


def test_a_dead_address_and_an_unknown_job_are_reported_in_one_line(run) -> None:
    refused = run("jobs", "list", XDUB_ADDRESS="http://127.0.0.1:1")
    assert refused.returncode == 2 and "no Ray dashboard answers" in refused.stderr
    unknown = run("jobs", "status", "nothing-7")
    assert unknown.returncode == 2 and "has no job 'nothing-7'; the latest are: " in unknown.stderr


def test_a_stopped_job_is_continued_by_the_same_submission(run, heads, tmp_path) -> None:
    out = tmp_path / "run"
    command = ["submit", "train", "generator", "--recipe", "tiny", "--data", str(heads), "--out", str(out)]
    for setting in SMALL:
        command += ["--set", setting]
    assert run(*command, "--resume", "--detach").returncode == 0
    refused = run(*command, "--resume")
    assert refused.returncode == 2 and "train-generator-run-1 still runs" in refused.stderr
    record, end = PhaseFolder(out, "generator").steps, time.monotonic() + 240
    while (last_record(record) or {"step": 0})["step"] < 3:
        assert time.monotonic() < end, run("jobs", "logs", "train-generator-run-1").stdout
        time.sleep(0.1)
    begin = time.monotonic()
    assert "STOPPED" in run("jobs", "stop", "train-generator-run-1").stdout
    assert time.monotonic() - begin < STOP_SECONDS, "Ray waited for an ended process"
    finished = run(*command, "--resume")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (
        "submitted train-generator-run-2" in finished.stderr
        and "generator finished at step 40" in finished.stdout
    )
    records = list(read_lines(record))
    assert [r["step"] for r in records] == list(range(1, 41)) and {r["attempt"] for r in records} == {1, 2}
