"""Keeping the routine chatter of C++ libraries off the terminal, and nothing else."""

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


@contextmanager
def without_chatter() -> Iterator[None]:
    """Holds back what is written to stderr in the block, by any thread, then passes on all but routine log lines.

    MediaPipe writes such lines whenever it starts, from C++, with no switch to turn them off.
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
