"""Tests of a real Ray cluster's dashboard: it serves no other file, needs the token, and small clusters fail early."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from perf.system.local_cluster import LocalCluster
from xdub.files.run_folder import PhaseFolder

pytestmark = pytest.mark.slow
SECRET = "a secret of the machine"
Send = Callable[..., tuple[int, bytes]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster"), more=0) as running:
        yield running


@pytest.fixture
def send(cluster) -> Send:
    """Return a function that sends a request with the token and an unchanged path, and returns status and body."""

    def call(
        method: str, path: str, body: bytes | None = None, *, token: bool = True, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(cluster.address).netloc, timeout=30)
        try:
            connection.request(method, path, body, {**headers, **(cluster.headers if token else {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return call


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "secret.txt"
    path.write_text(SECRET)
    return path


def spellings(target: Path) -> dict[str, str]:
    """Return paths that lead from a folder of unknown depth to a file of the machine."""
    target_path = str(target).lstrip("/")
    up = 12
    return {
        "plain": "../" * up + target_path,
        "encoded": "%2e%2e/" * up + target_path,
        "twice encoded": "%252e%252e%252f" * up + target_path,
        "backslash": "..%5c" * up + target_path.replace("/", "%5c"),
        "absolute": quote(str(target), safe=""),
        "mixed": "..%2f../%2e./" * (up // 2) + target_path,
    }


SPELLINGS = list(spellings(Path("x")))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_dashboard_serves_no_other_file_of_the_machine(send, cluster, secret, spelling) -> None:
    path = spellings(secret)[spelling]
    node = nodes(send)[0]["node_id"]
    for url in (
        f"/static/{path}",  # CVE-2023-6020
        f"/static/js/{path}",
        f"/logs/{path}",
        f"/api/v0/logs/file?node_id={node}&filename={path}",  # CVE-2023-6021
        f"/api/v0/logs?node_id={node}&glob={path}",
    ):
        status, answer = send("GET", url)
        assert SECRET.encode() not in answer, url
        assert status >= 400 or b"secret.txt" not in answer, (url, status, answer[:300])


def test_the_dashboard_serves_ray_s_own_logs(send) -> None:
    node = nodes(send)[0]["node_id"]
    status, answer = send("GET", f"/api/v0/logs/file?node_id={node}&filename=raylet.out")
    assert status == 200 and answer


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_upload_writes_no_file_outside_its_folder(send, secret, spelling) -> None:
    new = secret.with_name("new.zip")
    send("PUT", f"/api/packages/gcs/{spellings(new)[spelling]}", b"planted")
    assert not new.exists() and secret.read_text() == SECRET


def test_the_format_of_a_profile_runs_no_command(send, secret) -> None:
    # CVE-2023-6019
    planted = secret.with_name("planted")
    injection = quote(f"flamegraph; touch {planted};", safe="")
    node = nodes(send)[0]
    query = f"pid={os.getpid()}&ip={node['node_ip']}&node_id={node['node_id']}&duration=1&native=0"
    send("GET", f"/worker/cpu_profile?{query}&format={injection}")
    assert not planted.exists()


def test_requests_without_the_token_are_refused(send) -> None:
    for headers in ({}, {"Host": "evil.example"}, {"Cookie": "ray-authentication-token=" + "0" * 64}):
        for path in ("/api/jobs/", "/api/v0/nodes", "/logs/", "/nodes?view=summary"):
            assert send("GET", path, token=False, **headers)[0] in (401, 403), (headers, path)


def test_a_web_page_of_another_site_cannot_post(send) -> None:
    body = json.dumps({"entrypoint": "true"}).encode()
    browser = {
        "User-Agent": "Mozilla/5.0",
        "Origin": "http://evil.example",
        "Content-Type": "application/json",
    }
    assert send("POST", "/api/jobs/", body, token=False, **browser)[0] in (401, 403, 405)


def test_a_job_on_a_cluster_that_is_too_small_fails_with_the_numbers(send, cluster, tmp_path) -> None:
    from xdub.data.shards import ShardWriter
    from xdub.data.testing import make_clip

    with ShardWriter(tmp_path / "data") as writer:
        for seed in range(2):
            writer.add(make_clip(seed, num_frames=25, size=64))
    command = ["train", "generator", "--recipe", "tiny", "--data", str(tmp_path / "data")]
    command += ["--out", str(tmp_path / "run"), "--set", "train.workers=16"]
    # This is the command of a job's process. A submitted job prints the same line some seconds later.
    process = subprocess.run(
        [sys.executable, "-m", "xdub.cli.job", *command],
        env=os.environ | cluster.environment | {"RAY_ADDRESS": gcs(cluster)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    (line,) = [line for line in process.stderr.splitlines() if "xdub: error" in line]
    assert "train.workers=16 needs 16 CPUs and one for the data, and this Ray has room for 1;" in line
    assert not PhaseFolder(tmp_path / "run", "generator").steps.exists()


def nodes(send: Send) -> list[dict]:
    return json.loads(send("GET", "/api/v0/nodes?detail=1")[1])["data"]["result"]["result"]


def gcs(cluster: LocalCluster) -> str:
    return f"127.0.0.1:{cluster.port}"
