"""The audit of dependencies never stands in the way: without its database it says so in one line and ends well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_without_the_advisories_the_audit_is_skipped_with_a_word():
    nobody = {"XDUB_AUDIT_URL": "http://127.0.0.1:9", "PYTHON": sys.executable, "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [ROOT / "scripts/audit"], env=os.environ | nobody, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "audit: skipped, http://127.0.0.1:9 cannot be reached\n"


def test_ci_can_neither_hang_nor_fail_by_it():
    (line,) = (line for line in (ROOT / ".ci/run").read_text("utf-8").splitlines() if "scripts/audit" in line)
    assert line.startswith("timeout ") and "||" in line
