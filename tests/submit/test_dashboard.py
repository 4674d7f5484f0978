"""Dashboards that answer slowly, wrongly or not at all, and addresses of them; no Ray is started."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from xdub.errors import UserError
from xdub.submit import dashboard
from xdub.submit.command import Command
from xdub.submit.dashboard import check_address
from xdub.submit.jobs import Jobs

Serve = Callable[[dict[str, tuple[int, bytes]]], str]
VERSION = (200, json.dumps({"ray_version": ray.__version__}).encode())
JOB = {
    "type": "SUBMISSION",
    "submission_id": "a#b-1",
    "status": "RUNNING",
    "entrypoint": "sleep 1",
    "start_time": 1,
}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)


@pytest.fixture
def requested() -> list[str]:
    """Paths that a served dashboard received, with their methods."""
    return []


@pytest.fixture
def serve(requested: list[str]) -> Iterator[Serve]:
    """Return a function that serves ``{path: (status, body)}``, 404 elsewhere, and returns the address."""
    servers = []

    def start(answers: dict[str, tuple[int, bytes]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requested.append(f"{self.command} {self.path}")
                status, body = answers.get(self.path, (404, b"does not exist"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def cluster(*jobs: dict[str, object]) -> dict[str, tuple[int, bytes]]:
    """Return the answers of a dashboard with these jobs."""
    return {"/api/version": VERSION, "/api/jobs/": (200, json.dumps(jobs).encode())}


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_dashboard_on_this_machine_is_reached_without_the_proxy(
    variable: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "corp.example")  # so that both are restored
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert Jobs(serve(cluster())).all() == []


def test_the_address_of_the_command_counts_and_not_the_one_of_ray(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert Jobs(serve(cluster())).all() == []


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"/api/version": (200, b"<html>It works!</html>")}, "is not the dashboard of a Ray cluster"),
        ({}, "is not the dashboard of a Ray cluster"),
        ({"/api/version": (500, b"oops")}, "is not the dashboard of a Ray cluster"),
        ({"/api/version": (200, b"[]")}, "is not the dashboard of a Ray cluster"),
        (
            {"/api/version": VERSION, "/api/jobs/": (200, b'{"a": 1}')},
            "is not the dashboard of a Ray cluster",
        ),
        ({"/api/version": (403, b"no")}, "refuses our token"),
    ],
)
def test_another_web_server_is_named_in_one_line(
    answers: dict[str, tuple[int, bytes]], words: str, serve: Serve
) -> None:
    address = serve(answers)
    with pytest.raises(UserError, match=words) as error:
        Jobs(address).all()
    assert str(error.value).startswith(address) and "\n" not in str(error.value)


def test_a_dashboard_that_never_answers_is_left_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "xdub.submit.jobs.Jobs._call", lambda self, function: dashboard.call(function, "x", 0.3)
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(UserError, match="x: no answer in 0 s"):
            Jobs(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("job", "path"),
    [
        ("a#b-1", "a%23b-1"),
        ("team/run1-1", "team%2Frun1-1"),
        ("a?b", "a%3Fb"),
        ("a b", "a%20b"),
        ("é", "%C3%A9"),
    ],
)
def test_a_job_of_any_name_is_one_part_of_the_path(
    job: str, path: str, serve: Serve, requested: list[str]
) -> None:
    details = {f"/api/jobs/{path}": (200, json.dumps(JOB | {"submission_id": job}).encode())}
    assert Jobs(serve(cluster() | details)).status(job).id == job
    assert requested[-1] == f"GET /api/jobs/{path}"


@pytest.mark.parametrize("job", ["", ".", "..", "../..", "nothing\n", "\udcff"])
def test_an_unknown_job_is_named_in_one_line(job: str, serve: Serve, requested: list[str]) -> None:
    jobs = Jobs(serve(cluster(JOB)))
    for function in (jobs.status, jobs.logs, jobs.stop, jobs.follow):
        with pytest.raises(UserError, match="has no job .*; the latest are: a#b-1") as error:
            function(job)
        assert "\n" not in str(error.value)
    assert not [path for path in requested if path.startswith("POST")]


@pytest.mark.parametrize("name", ["team/run1", "a#b", "", "..", "-x"])
def test_a_bad_name_sends_nothing(name: str, serve: Serve, requested: list[str]) -> None:
    jobs = Jobs(serve(cluster()))
    before = len(requested)
    with pytest.raises(UserError, match="--name"):
        jobs.submit(Command(("render",), ("--out", "/ds"), (), "/ds"), name=name, variables={})
    assert len(requested) == before


@pytest.mark.parametrize(
    ("address", "result"),
    [
        ("http://127.0.0.1:8265/", "http://127.0.0.1:8265"),
        (" HTTP://head:8265/#/jobs", "http://head:8265"),
        ("https://[::1]:8265", "https://[::1]:8265"),
        ("https://gateway.example/ray/", "https://gateway.example/ray"),
    ],
)
def test_an_address_is_used_without_the_page_of_a_browser(address: str, result: str) -> None:
    assert check_address(address) == result


@pytest.mark.parametrize(
    "address",
    ["", "auto", "127.0.0.1:8265", "ray://head:10001", "http://", "http://[::1", "http://head:port"],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"--address .*: use the dashboard's address, such as"):
        check_address(address)
