"""Tests of the worker processes that render."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os
from xdub.render.processes import THREADS, renderers
if __name__ == "__main__":
    with renderers(2) as pool:
        threads = [pool.submit(os.getenv, name).result() for name in THREADS]
        print(pool.submit(os.getpid).result(), threads, flush=True)
        os.read(0, 1)
"""


def test_workers_have_one_thread_each_and_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "render_something.py"
    script.write_text(SCRIPT)
    pipe = subprocess.PIPE
    parent = subprocess.Popen([sys.executable, str(script)], stdin=pipe, stdout=pipe, text=True)
    pid, threads = parent.stdout.readline().split(maxsplit=1)
    assert threads.strip() == "['1', '1', '1']"
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while _runs(int(pid)):
        assert time.monotonic() < end, "the worker outlives its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
