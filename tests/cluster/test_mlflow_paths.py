"""Tests of MLflow's server with our options: requests over HTTP stay inside the folder of artifacts."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from perf.system.mlflow_server import MlflowServer

pytestmark = pytest.mark.slow
FILES = "/api/2.0/mlflow-artifacts/artifacts"
SECRET = "a secret of the machine"
Send = Callable[..., tuple[int, bytes]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    # The secret is beside the folder of artifacts, like the database.
    (server.folder / "secret.txt").write_text(SECRET)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture
def send(server: MlflowServer) -> Send:
    """Return a function that sends a request with an unchanged path and returns status and body."""

    def call(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return call


def spellings(target: Path) -> dict[str, str]:
    """Return paths that lead to a file beside the folder of artifacts."""
    name = target.name
    return {
        "plain": f"../{name}",
        "encoded": f"%2e%2e/{name}",
        "twice encoded": f"%252e%252e%252f{name}",
        "backslash": f"..%5c{name}",
        "absolute": quote(str(target), safe=""),
        "mixed": f"a/b/..%2f../%2e./..%2f{name}",
    }


SPELLINGS = list(spellings(Path("x")))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_server_sends_no_file_outside_its_folder(server, send, spelling) -> None:
    path = spellings(server.folder / "secret.txt")[spelling]
    run = new_run(send)
    for url in (
        f"{FILES}/{path}",
        f"{FILES}?path={path}",
        f"/get-artifact?run_uuid={run}&path={path}",
        f"/ajax-api/2.0/mlflow/artifacts/list?run_uuid={run}&path={path}",
        f"/static-files/{path}",
    ):
        status, answer = send("GET", url)
        assert SECRET.encode() not in answer and b"mlflow.db" not in answer, url
        # An encoded name may name a missing file, which lists as empty; `<` begins the shell of MLflow's web page.
        shown = answer.lstrip()[:1] != b"<" and json.loads(answer or b"{}").get("files")
        assert status >= 400 or not shown, (url, status, answer[:200])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_server_writes_and_removes_no_file_outside_its_folder(server, send, spelling) -> None:
    secret, new = server.folder / "secret.txt", server.folder / "new.txt"
    send("PUT", f"{FILES}/{spellings(new)[spelling]}", b"planted")
    send("PUT", f"{FILES}/{spellings(secret)[spelling]}", b"overwritten")
    send("DELETE", f"{FILES}/{spellings(secret)[spelling]}")
    assert secret.read_text() == SECRET
    inside = server.folder / "artifacts"
    planted = [path for path in server.folder.parent.rglob("*") if "new.txt" in path.name]
    assert all(path.is_relative_to(inside) for path in planted), planted


def test_the_server_stores_and_sends_files_of_its_folder(server, send) -> None:
    assert send("PUT", f"{FILES}/run/strip.txt", b"a strip")[0] == 200
    assert (server.folder / "artifacts/run/strip.txt").read_bytes() == b"a strip"
    assert send("GET", f"{FILES}/run/strip.txt") == (200, b"a strip")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_foreign_host_header_is_refused(send, host) -> None:
    for path in (f"{FILES}/run/strip.txt", "/", "/api/2.0/mlflow/experiments/search?max_results=1"):
        assert send("GET", path, Host=host)[0] == 403


def test_a_web_page_of_another_site_cannot_post(send) -> None:
    body = json.dumps({"name": "planted"}).encode()
    headers = {"Content-Type": "application/json", "Origin": "http://evil.example"}
    assert send("POST", "/api/2.0/mlflow/experiments/create", body, **headers)[0] == 403


def new_run(send: Send) -> str:
    """Create a run and return its id."""
    body = json.dumps({"experiment_id": "0"}).encode()
    status, answer = send("POST", "/api/2.0/mlflow/runs/create", body, **{"Content-Type": "application/json"})
    assert status == 200
    return json.loads(answer)["run"]["info"]["run_id"]
