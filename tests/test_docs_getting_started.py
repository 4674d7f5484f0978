"""Tests that run the cheap commands of docs/getting-started.md, and tests of scripts/newcomer, which runs all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "getting-started.md"
SCRIPT = ROOT / "scripts" / "newcomer"
BLOCKS = re.findall(r"^(?:(<!-- not run[^\n]*-->)\n)?```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
"""Pairs of the comment that excludes a block (or "") and its commands."""


def test_the_cheap_commands_of_the_page_run_and_write_a_data_set(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for reason, text in BLOCKS:
        if not reason:
            process = subprocess.run(
                ["bash", "-ec", text],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
                capture_output=True,
                text=True,
            )
            assert process.returncode == 0, text + process.stderr[-3000:]
    names = {path.name for path in (tmp_path / "heads").iterdir()}
    assert {"manifest.json", "manifest", "ledger"} <= names
    # The last block ends with the plan.
    assert "generator" in process.stdout


def test_the_newcomer_script_runs_every_command_that_is_not_marked_not_run() -> None:
    process = subprocess.run([SCRIPT, "--list"], capture_output=True, text=True, check=True)
    listed = process.stdout.splitlines()
    texts = [text for reason, text in BLOCKS if not reason.startswith("<!-- not run: ")]
    assert listed == "".join(texts).splitlines()
    assert "make venv" in listed and "scripts/newcomer" not in listed


def test_the_newcomer_script_times_commands_in_a_clone_and_stops_at_the_first_failure(tmp_path: Path) -> None:
    page = (
        "<!-- not run: x -->\n```sh\nexit 7\n```\n\n```sh\necho made > made\ntest -f made\n```\n\n"
        "<!-- not run in tests: y -->\n```sh\ntest -f \\\n  nothing\ntouch never\n```\n"
        "<!-- newcomer: begin -->\nold\n<!-- newcomer: end -->\nafter\n"
    )
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs" / "getting-started.md").write_text(page)
    shutil.copy(SCRIPT, tmp_path / "scripts")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    process = subprocess.run([tmp_path / "scripts" / "newcomer"], capture_output=True, text=True)
    assert process.returncode == 1, process.stderr
    result = json.loads((tmp_path / "docs" / "results" / "newcomer.json").read_text())
    rows = [(row["command"], row["exit"]) for row in result["commands"]]
    assert rows == [("echo made > made", 0), ("test -f made", 0), ("test -f    nothing", 1)]
    assert result["environment"]["commit"] and result["hardware"]["cores"] >= 1
    written = (tmp_path / "docs" / "getting-started.md").read_text()
    assert "| `test -f made` |" in written and "old" not in written and written.endswith("-->\nafter\n")
    assert not (tmp_path / "made").exists()
