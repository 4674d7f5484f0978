"""A lock has one holder at a time, also between processes, and is free after the holder's death."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files import lock
from xdub.files.lock import exclusive

HOLD = """
import sys
from pathlib import Path
from xdub.files.lock import exclusive
with exclusive(Path(sys.argv[1]), busy="busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen]:
    """Start another process that holds the lock, and yield the process."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_holder_gets_the_message_and_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process:
        with pytest.raises(UserError, match="^in use$"), exclusive(path, busy="in use"):
            pass
        process.kill()
        process.wait()
        with exclusive(path, busy="in use"):
            pass


def test_without_a_message_the_second_holder_waits(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    events: list[str] = []

    def second() -> None:
        with exclusive(path):
            events.append("second")

    with exclusive(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        events.append("first")
    thread.join()
    assert events == ["first", "second"]


def test_the_locked_file_keeps_its_text(tmp_path: Path) -> None:
    path = tmp_path / "record"
    for text in ("a", "b"):
        with exclusive(path) as file:
            file.write(text)
    with exclusive(path) as file:
        file.seek(0)
        assert file.read() == "ab"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_gets_a_note_only_where_a_second_writer_would_do_harm(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with exclusive(tmp_path / "cache"):
        pass
    assert capsys.readouterr().err == ""
    with exclusive(tmp_path / "run", busy="in use"):
        pass
    printed = capsys.readouterr().err
    assert "has no locks" in printed and printed.count("\n") == 1
