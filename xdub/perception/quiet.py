"""Suppression of routine log lines of C++ libraries on the terminal."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = re.compile(
    rb"[WI]\d{4} \d\d:|INFO: Created TensorFlow Lite|WARNING: All log messages before absl::InitializeLog"
)
"""Beginnings of lines that are suppressed."""


@contextmanager
def without_chatter() -> Iterator[None]:
    """Buffer the output of all threads to stderr in the block, then print it without routine log lines.

    MediaPipe writes such lines from C++ at every start and has no option to turn them off.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        real = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            kept.seek(0)
            for line in kept:
                if not CHATTER.match(line):
                    os.write(real, line)
            os.close(real)
