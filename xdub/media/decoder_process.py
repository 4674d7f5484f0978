"""The process that decodes for `xdub.media.isolated`: ``python -m xdub.media.decoder_process FD``.

Requests are lines of JSON on the standard input, and replies are messages on the file descriptor FD: one byte for the
kind, eight for the length, then the content. A request ends with `END`, `ERROR` or `DEFECT`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xdub.errors import UserError
from xdub.media.audio import store_audio
from xdub.media.damage import Damage
from xdub.media.probe import probe
from xdub.media.reader import read_video

HEADER = struct.Struct(">cQ")
"""Kind and length of a message."""
FACTS, FRAME, AGAIN, SAMPLES, ALIVE, END, ERROR, DEFECT = b"I", b"F", b"R", b"A", b"L", b"Z", b"E", b"X"
"""Kinds: facts as JSON, a frame, the frame before once more, samples, no news, the damage at the end, an error of the
file, and an error of the program."""
SHAPE = struct.Struct(">II")
"""Height and width before the pixels of a frame."""
MEMORY = 16 << 30
"""Most bytes of address space, so that a file with wrong sizes fails alone."""
PULSE = 1.0
"""Seconds between two messages without news."""


def main() -> None:
    """Serve requests until the standard input ends."""
    # A decoder that hangs ends with its parent.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = int(sys.argv[1])
    for line in sys.stdin.buffer:
        if line.strip() != b"stop":
            _serve(json.loads(line), out)


def _serve(request: dict[str, Any], out: int) -> None:
    """Answer one request."""
    damage, begin = Damage(), time.process_time()
    serve: dict[str, Callable[[dict[str, Any], Damage, int], None]] = {
        "probe": _probe,
        "video": _video,
        "audio": _audio,
    }
    try:
        serve[request.pop("verb")](request, damage, out)
    except UserError as error:
        _send(out, ERROR, str(error).encode())
    except Exception as error:
        _send(out, DEFECT, f"{type(error).__name__}: {error}".encode())
    else:
        _send(out, END, json.dumps(asdict(damage) | {"cores": time.process_time() - begin}).encode())


def _probe(request: dict[str, Any], damage: Damage, out: int) -> None:
    facts = asdict(probe(os.fsdecode(bytes.fromhex(request["path"])), damage))
    _send(out, FACTS, json.dumps(facts | {"path": ""}).encode())


def _video(request: dict[str, Any], damage: Damage, out: int) -> None:
    path = Path(os.fsdecode(bytes.fromhex(request.pop("path"))))
    frames = read_video(path, damage=damage, **request)
    # The file can be opened: errors at the call end here.
    _send(out, ALIVE)
    last: np.ndarray | None = None
    for frame in frames:
        if select.select([0], [], [], 0)[0]:
            sys.stdin.buffer.readline()
            return
        if frame is last:
            _send(out, AGAIN)
        else:
            height, width = frame.shape[:2]
            _send(out, FRAME, SHAPE.pack(height, width), np.ascontiguousarray(frame).data.cast("B"))
        last = frame


def _audio(request: dict[str, Any], damage: Damage, out: int) -> None:
    sent = time.monotonic()

    def pulse() -> None:
        nonlocal sent
        if time.monotonic() - sent > PULSE:
            _send(out, ALIVE)
            sent = time.monotonic()

    path = os.fsdecode(bytes.fromhex(request["path"]))
    for samples in store_audio(path, request["rate"], damage=damage, on_block=pulse).blocks():
        _send(out, SAMPLES, samples.data.cast("B"))


def _send(out: int, kind: bytes, *parts: bytes | memoryview) -> None:
    """Write one message."""
    length = sum(len(part) for part in parts)
    for part in (HEADER.pack(kind, length), *parts):
        view = memoryview(part)
        while view:
            view = view[os.write(out, view) :]


if __name__ == "__main__":
    main()
