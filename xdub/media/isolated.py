"""Readers of files that may be hostile: each file is decoded in another process, with a time limit.

A decoder that crashes, hangs or fills the memory ends with its process and costs its own file alone. Damaged files are
read as far as possible, and the losses are recorded. Processes are started at first use and serve many files.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from xdub.errors import UserError
from xdub.media import decoder_process as child
from xdub.media.damage import Damage
from xdub.media.deadline import Deadline, TimeLimit
from xdub.media.probe import VideoInfo
from xdub.media.stored_sound import StoredSound

PIPE = 1 << 20
"""Bytes of the pipe between the processes."""


class DecoderCrash(Exception):
    """A file whose decoder crashed."""


def probe(path: str | Path, damage: Damage | None = None, deadline: Deadline | None = None) -> VideoInfo:
    """Call `xdub.media.probe` in another process; a truncated file is recorded in ``damage``.

    Raises:
        UserError: as there, or the time limit has passed (`TimeLimit`).
        DecoderCrash: the process died.
    """
    with _request("probe", Path(path), damage, deadline) as messages:
        facts: dict[str, Any] = {}
        for kind, content in messages:
            if kind == child.FACTS:
                facts = json.loads(bytes(content))
        facts["path"] = Path(path)
        return VideoInfo(**facts)


def read_video(
    path: str | Path,
    *,
    fps: float = 25.0,
    exact: bool = True,
    damage: Damage | None = None,
    deadline: Deadline | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of `xdub.media.read_video`, decoded in another process; damaged data end the frames.

    Raises:
        UserError: as in `probe`, at the first frame.
        DecoderCrash: the process died.
    """
    with _request("video", Path(path), damage, deadline, fps=fps, exact=exact) as messages:
        frame: np.ndarray | None = None
        for kind, content in messages:
            if kind == child.FRAME:
                height, width = child.SHAPE.unpack_from(content)
                pixels = np.frombuffer(content, np.uint8, offset=child.SHAPE.size)
                frame = pixels.reshape(height, width, 3)
            if frame is not None and kind in (child.FRAME, child.AGAIN):
                yield frame


def store_audio(
    path: str | Path,
    rate: int = 16000,
    *,
    damage: Damage | None = None,
    deadline: Deadline | None = None,
) -> StoredSound:
    """Call `xdub.media.store_audio` in another process; sound that cannot be decoded is silence.

    Raises:
        UserError: as in `probe`, or the file has no sound.
        DecoderCrash: the process died.
    """
    sound = StoredSound()
    with _request("audio", Path(path), damage, deadline, rate=rate) as messages:
        for kind, content in messages:
            if kind == child.SAMPLES:
                sound.append(np.frombuffer(content, np.float32))
    return sound


class _Process:
    """A decoder process and the pipes to it."""

    def __init__(self) -> None:
        self._input, output = os.pipe()
        with suppress(OSError, AttributeError):
            # The default of 64 kB would wake both processes a hundred times a frame.
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE)
        self._process = subprocess.Popen(
            [sys.executable, "-m", child.__name__, str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[output],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        os.close(output)
        self.busy = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Send a request; a process that died is noticed by `receive`."""
        with suppress(OSError):
            stdin = self._process.stdin
            assert stdin is not None
            stdin.write(line + b"\n")
            stdin.flush()

    def receive(self, timeout: float) -> tuple[bytes, bytearray] | None:
        """Return the next message (kind, content), None if it does not arrive within ``timeout`` seconds.

        Raises:
            DecoderCrash: the process died.
        """
        end = time.monotonic() + timeout
        header = self._read(child.HEADER.size, end)
        if header is None:
            return None
        kind, length = child.HEADER.unpack(header)
        content = self._read(length, end)
        return None if content is None else (kind, content)

    def _read(self, count: int, end: float) -> bytearray | None:
        content = bytearray(count)
        view = memoryview(content)
        while view:
            ready, _, _ = select.select([self._input], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            size = os.readv(self._input, [view])
            if not size:
                code = self._process.wait()
                cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                raise DecoderCrash(f"its decoder crashed ({cause})")
            view = view[size:]
        return content

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        if self._input >= 0:
            os.close(self._input)
            self._input = -1


_idle: list[_Process] = []
"""Processes without a request."""
_owner = 0
"""Process that started them."""


def _borrow() -> _Process:
    """Return an idle process, or start one."""
    global _owner
    if _owner != os.getpid():
        # A forked process inherits the list, not the right to the pipes.
        _idle.clear()
        _owner = os.getpid()
        atexit.register(close_decoders)
    while _idle:
        process = _idle.pop()
        if process.alive:
            return process
        process.close()
    return _Process()


def idle_decoders() -> list[_Process]:
    """List the processes without a request."""
    return list(_idle)


def close_decoders() -> None:
    """End all idle processes of this process."""
    while _owner == os.getpid() and _idle:
        _idle.pop().close()


@contextmanager
def _request(
    verb: str, path: Path, damage: Damage | None, deadline: Deadline | None, **options: Any
) -> Iterator[Iterator[tuple[bytes, bytearray]]]:
    """Send a request; the block gets the messages of its answer."""
    deadline = deadline or Deadline()
    process, done = _borrow(), False
    name = os.fsencode(path).hex()
    process.send(json.dumps({"verb": verb, "path": name, **options}).encode())

    def messages() -> Iterator[tuple[bytes, bytearray]]:
        nonlocal done
        while True:
            timeout = deadline.check(path)
            message = process.receive(timeout)
            if message is None:
                deadline.check(path)
                text = f"{path}: no picture or sound within {timeout:g} s; its decoder was stopped"
                raise TimeLimit(text, timeout, timeout)
            kind, content = message
            done = kind in (child.END, child.ERROR, child.DEFECT)
            if kind == child.ERROR:
                raise UserError(content.decode())
            if kind == child.DEFECT:
                raise RuntimeError(f"{path}: {content.decode()}")
            if kind == child.END:
                ending = json.loads(bytes(content))
                deadline.decoding += ending["cores"]
                if damage is not None:
                    damage.note(ending["reason"])
                    damage.packets += ending["packets"]
                    damage.stated = ending["stated"] or damage.stated
                return
            yield kind, content

    try:
        yield messages()
    finally:
        if done or _drain(process, deadline):
            _idle.append(process)
        else:
            process.close()


def _drain(process: _Process, deadline: Deadline, seconds: float = 2.0) -> bool:
    """Stop the request of a process; return whether it is ready for another one."""
    end = time.monotonic() + seconds
    process.send(b"stop")
    try:
        while (message := process.receive(max(0.0, end - time.monotonic()))) is not None:
            if message[0] == child.END:
                deadline.decoding += json.loads(bytes(message[1]))["cores"]
            if message[0] in (child.END, child.ERROR, child.DEFECT):
                return True
    except DecoderCrash:
        pass
    return False
