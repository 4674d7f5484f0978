"""A web server of files with ranges, redirects and the headers of the Hugging Face hub, and its faults on demand."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

RANGE = re.compile(r"bytes=(\d+)-")


class FileServer(ThreadingHTTPServer):
    """Server of `files`; `requests` records method, path, range and login of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        self.spoil: Callable[[bytes], bytes] = lambda content: content
        """Change of the content of an answer."""
        self.cut: list[int] = []
        """Bytes after which the next answers close their connections."""
        self.statuses: list[int] = []
        """Statuses of the next answers in place of content."""
        self.pause = 0.0
        """Seconds between two blocks of 4 kB."""
        self.redirects = False
        """Answer with a redirect to /cdn/... that states the file's hash, as the hub does."""
        self.ranges = True
        """False: answer every request with the whole file."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def starts(self) -> list[int]:
        """First bytes of the ranges that were requested, 0 for whole files."""
        matches = [RANGE.match(part or "") for method, _, part, _ in self.requests if method == "GET"]
        return [int(match[1]) if match else 0 for match in matches]


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 (name of http.server)
        self._answer(body=False)

    def do_GET(self) -> None:  # noqa: N802
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        server, path = self.server, self.path
        server.requests.append(
            (self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        name = path.removeprefix("/cdn")
        if name not in server.files:
            return self._end(404)
        content = server.files[name]
        digest = hashlib.sha256(content).hexdigest()
        if server.redirects and not path.startswith("/cdn"):
            headers = {"Location": f"{server.url}/cdn{path}", "X-Linked-Size": str(len(content))}
            return self._end(302, headers | {"X-Linked-Etag": f'"{digest}"'})
        if server.statuses:
            return self._end(server.statuses.pop(0))
        match = RANGE.match(self.headers.get("Range") or "")
        tag = f'"{digest}"'
        partial = server.ranges and match is not None and self.headers.get("If-Range", tag) == tag
        start = int(match[1]) if match and partial else 0
        if start > len(content):
            return self._end(416)
        self.send_response(206 if partial else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self._send(server.spoil(content)[start:])

    def _send(self, content: bytes) -> None:
        server = self.server
        if server.cut:
            content = content[: server.cut.pop(0)]
        try:
            for begin in range(0, len(content), 4096):
                self.wfile.write(content[begin : begin + 4096])
                time.sleep(server.pause)
        except OSError:
            # The client was killed.
            pass

    def _end(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Run a server in place of the hub; downloads are allowed, and a lost connection is tried again at once."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("xdub.perception.open_models.download.PAUSE", 0.0)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache and return its folder of weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDUB_WEIGHTS", raising=False)
    return tmp_path / "cache" / "xdub" / "weights"
