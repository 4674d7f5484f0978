"""End of a verb by a signal or a closed pipe: everything is cleaned up, and the exit code names the signal.

`xdub train` replaces the handlers while it trains, because it writes a checkpoint first.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from xdub.progress import leave_closed_terminal

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a verb; Python turns SIGINT into KeyboardInterrupt itself."""


@contextmanager
def clean_stop() -> Iterator[None]:
    """Raise SystemExit(128 + number) in the main thread at a signal; print one line when the block has cleaned up.

    A signal that the process ignores, such as SIGHUP under nohup, stays ignored. Further signals during the cleanup
    have no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for each in replaced:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGHUP:
            leave_closed_terminal()
        received.append(number)
        raise SystemExit(128 + number)

    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    except SystemExit as error:
        # Ray replaces the handler of SIGTERM by one that raises SystemExit(15).
        if error.code == signal.SIGTERM:
            received.append(signal.SIGTERM)
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
        if received:
            name = signal.Signals(received[0]).name
            with suppress(OSError):
                print(f"xdub: stopped by {name}; the same command continues where it can", file=sys.stderr)


def reader_has_left() -> bool:
    """Return whether stdout is a pipe whose reader has closed it, as in ``xdub ... | head``; discard further output."""
    try:
        sys.stdout.flush()
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        left = any(event & select.POLLERR for _, event in poll.poll(0))
    except BrokenPipeError:
        left = True
    except (OSError, ValueError):
        return False
    if left:
        # Python flushes stdout once more when it exits.
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
    return left
