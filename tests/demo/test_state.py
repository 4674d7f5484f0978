"""The record of a demo on disk, and the memory meter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xdub.demo.meter import Meter
from xdub.demo.state import DemoState
from xdub.errors import UserError

FLAGS = {"seed": 0, "from_scratch": False}


def test_a_finished_stage_keeps_its_result_and_time(tmp_path: Path) -> None:
    with DemoState.open(tmp_path / "new", flags=FLAGS, plan={"clips": 3}) as state:
        with state.running("render", beat=0.01):
            time.sleep(0.05)
        state.finish("render", {"ids": [1, 2]})
    with DemoState.open(tmp_path / "new", flags=FLAGS, plan={"clips": 99}) as state:
        assert state.done("render") and state.result("render") == {"ids": [1, 2]} and not state.done("pairs")
        assert state.seconds()["render"] >= 0.05
        # A demo continues with its own plan, although the defaults may have changed.
        assert state.plan == {"clips": 3}


def test_the_time_of_a_killed_attempt_counts(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from xdub.demo.state import DemoState\n"
        f"with DemoState.open(Path({str(tmp_path)!r}), flags={FLAGS!r}, plan={{}}) as s:\n"
        "  with s.running('render', beat=0.02):\n"
        "    print('on', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"on\n"
    time.sleep(0.3)
    with (
        pytest.raises(UserError, match="a demo is running there"),
        DemoState.open(tmp_path, flags=FLAGS, plan={}),
    ):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with DemoState.open(tmp_path, flags=FLAGS, plan={}) as state:
        before = state.seconds()["render"]
        assert before > 0.1 and not state.done("render")
        with state.running("render"):
            time.sleep(0.05)
        assert state.seconds()["render"] >= before + 0.05


def test_other_flags_are_refused_and_named(tmp_path: Path) -> None:
    with DemoState.open(tmp_path, flags=FLAGS, plan={}):
        pass
    with (
        pytest.raises(UserError, match=r"seed=0 \(now 1\)"),
        DemoState.open(tmp_path, flags={**FLAGS, "seed": 1}, plan={}),
    ):
        pass


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="thesis.txt"), DemoState.open(tmp_path, flags=FLAGS, plan={}):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt"}


def test_a_damaged_record_or_an_unusable_folder_gives_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(UserError, match="damaged"), DemoState.open(tmp_path, flags=FLAGS, plan={}):
        pass
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="cannot write there"), DemoState.open(file, flags=FLAGS, plan={}):
        pass


def test_the_record_is_valid_json_at_every_moment(tmp_path: Path) -> None:
    with DemoState.open(tmp_path, flags=FLAGS, plan={}) as state, state.running("a", beat=0.001):
        for i in range(200):
            state.note(peak_gb=i)
            json.loads((tmp_path / "demo.json").read_text())


def test_the_meter_counts_the_memory_of_child_processes() -> None:
    hold = "import sys; data = bytearray(400_000_000); sys.stdout.write('x'); sys.stdout.flush()"
    hold += "; sys.stdin.read()"
    with Meter(interval=0.05) as meter:
        before = meter.peak_gb
        child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdin is not None
        child.stdout.read(1)
        deadline = time.monotonic() + 20
        while meter.peak_gb < before + 0.3 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.stdin.close()
        child.wait()
    assert meter.peak_gb >= before + 0.3 and meter.peak_rss_gb >= meter.peak_gb
