"""A process without progress ends itself and writes the stacks of its threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from xdub.train.supervise.watchdog import EXIT_CODE

SCRIPT = """
import sys, time
from pathlib import Path
from xdub.train.supervise.watchdog import Watchdog

def waits_for_a_partner(seconds):
    time.sleep(seconds)

with Watchdog(0.5, Path(sys.argv[1])) as watchdog:
    for _ in range(10):  # in total four times the limit
        time.sleep(0.2)
        watchdog.beat()
    waits_for_a_partner(float(sys.argv[2]))
print("finished")
"""


def run(report: Path, seconds: float) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT, str(report), str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_process_that_makes_progress_runs_to_its_end(tmp_path: Path) -> None:
    done = run(tmp_path / "report.txt", 0.0)
    assert (done.returncode, done.stdout) == (0, "finished\n")
    assert not (tmp_path / "report.txt").exists()


def test_a_process_that_hangs_ends_with_the_stacks_of_its_threads(tmp_path: Path) -> None:
    done = run(tmp_path / "report.txt", 40.0)
    assert done.returncode == EXIT_CODE and not done.stdout
    report = (tmp_path / "report.txt").read_text()
    assert "no progress for 0.5 s" in report and "waits_for_a_partner" in report
