"""A download is continued after a kill and a lost connection, and wrong content is refused."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.perception.open_models.download import Remote, download
from xdub.perception.open_models.hub import HubFile

CONTENT = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def remote(server) -> Remote:
    server.files["/model.bin"] = CONTENT
    return Remote(url=f"{server.url}/model.bin", size=len(CONTENT), sha256=SHA256)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_download_that_was_killed_is_continued_where_it_ended(server, remote, tmp_path: Path) -> None:
    target, part = tmp_path / "model.bin", tmp_path / "model.bin.part"
    code = (
        "from pathlib import Path; from xdub.perception.open_models.download import Remote, download; "
        f"download(Remote(url={remote.url!r}, size={remote.size}, sha256={SHA256!r}), Path({str(target)!r}))"
    )
    server.pause = 0.02
    process = subprocess.Popen([sys.executable, "-c", code])
    least = random.Random().randrange(1, len(CONTENT) // 2)
    while not part.exists() or part.stat().st_size < least:
        assert process.poll() is None, "the download ended before it was killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = part.stat().st_size
    assert 0 < stored < len(CONTENT) and not target.exists()
    server.pause = 0.0
    reported: list[float] = []
    download(remote, target, report=lambda done, total=None, text="": reported.append(done))
    assert target.read_bytes() == CONTENT and names(tmp_path) == {"model.bin"}
    assert server.starts() == [0, stored] and reported[0] == stored and reported[-1] == len(CONTENT)


def test_lost_connections_and_busy_servers_are_tried_again(server, remote, tmp_path: Path) -> None:
    server.cut, server.statuses = [100_000, 0, 50_001], [503, 429]
    assert download(remote, tmp_path / "model.bin") == SHA256
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert server.starts()[2:] == [0, 100_000, 100_000, 150_001]


def test_a_server_that_stays_silent_ends_the_download_but_keeps_the_part(
    server, remote, tmp_path: Path
) -> None:
    server.cut = [1000, *[0] * 20]
    with pytest.raises(UserError, match="stopped after 1,000 bytes.*the same command continues it"):
        download(remote, tmp_path / "model.bin")
    server.cut = []
    assert download(remote, tmp_path / "model.bin") == SHA256 and server.starts()[-1] == 1000


def test_a_closed_port_and_a_server_that_drops_connections_are_one_line_each(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        server.RequestHandlerClass, "do_GET", lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    )
    with pytest.raises(UserError, match="the download stopped after 0 bytes") as caught:
        download(Remote(url=f"{server.url}/model.bin"), tmp_path / "model.bin")
    assert "\n" not in str(caught.value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="the download stopped after 0 bytes.*refused"):
        download(Remote(url=f"http://127.0.0.1:{port}/model.bin"), tmp_path / "model.bin")
    assert names(tmp_path) == set()


def test_a_flipped_byte_is_refused_and_the_file_fetched_again(server, remote, tmp_path: Path) -> None:
    position, flips = random.Random().randrange(len(CONTENT)), iter([True])

    def flip(content: bytes) -> bytes:
        if not next(flips, False):
            return content
        return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]

    server.spoil = flip
    assert download(remote, tmp_path / "model.bin") == SHA256
    assert (tmp_path / "model.bin").read_bytes() == CONTENT and server.starts() == [0, 0]


def test_content_that_stays_wrong_is_refused_and_not_kept(server, remote, tmp_path: Path) -> None:
    server.spoil = lambda content: b"x" + content[1:]
    with pytest.raises(UserError, match="another content twice"):
        download(remote, tmp_path / "model.bin")
    assert names(tmp_path) == set()


def test_a_flipped_byte_in_the_part_is_found_when_the_download_is_complete(
    server, remote, tmp_path: Path
) -> None:
    server.cut = [200_000, *[0] * 3]
    with pytest.raises(UserError):
        download(remote, tmp_path / "model.bin")
    part = tmp_path / "model.bin.part"
    part.write_bytes(b"\0" + part.read_bytes()[1:])
    server.requests.clear()
    assert download(remote, tmp_path / "model.bin") == SHA256
    assert server.starts() == [200_000, 0]


def test_a_part_of_another_version_is_not_continued(server, remote, tmp_path: Path) -> None:
    server.cut = [200_000, *[0] * 3]
    unpinned = Remote(url=remote.url)
    with pytest.raises(UserError):
        download(unpinned, tmp_path / "model.bin")
    newer = random.Random(1).randbytes(300_000)
    server.files["/model.bin"] = newer
    # The server compares the tag of the part with its file and sends the file from its beginning.
    assert download(unpinned, tmp_path / "model.bin") == hashlib.sha256(newer).hexdigest()
    assert (tmp_path / "model.bin").read_bytes() == newer


def test_a_server_without_ranges_sends_the_file_from_its_beginning(server, remote, tmp_path: Path) -> None:
    server.cut, server.ranges = [200_000], False
    assert download(remote, tmp_path / "model.bin") == SHA256


@pytest.mark.parametrize(
    ("status", "message"), [(403, "set HF_TOKEN"), (404, "no such file"), (400, "status 400")]
)
def test_a_refusal_is_one_line_with_the_address(server, remote, tmp_path: Path, status, message) -> None:
    server.statuses = [status]
    with pytest.raises(UserError, match=f"model.bin: .*{message}") as caught:
        download(remote, tmp_path / "model.bin")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_length_is_refused_before_it_is_downloaded(server, remote, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 400,000 bytes on the server, but 7 are expected"):
        download(Remote(url=remote.url, size=7, sha256=SHA256), tmp_path / "model.bin")
    assert names(tmp_path) == set()


def test_the_hub_states_size_and_hash_and_only_the_hub_gets_the_login(
    server, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("xdub.perception.open_models.hub._token", lambda: "secret")
    server.files["/team/model/resolve/main/w.bin"] = CONTENT
    server.redirects = True
    remote = HubFile(repo="team/model", file="w.bin").remote()
    assert (remote.size, remote.sha256) == (len(CONTENT), SHA256)
    download(remote, tmp_path / "w.bin")
    logins = {path.startswith("/cdn"): login for _, path, _, login in server.requests}
    assert logins == {False: "Bearer secret", True: None}
