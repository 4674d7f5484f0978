"""A verb that a signal ends removes its temporary files and processes, prints one line, and has the signal's code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from xdub.cli.errors import run_app

WRITE = """
import sys, time
import numpy as np, typer
from xdub.cli.errors import run_app
from xdub.media import write_video

app = typer.Typer()

@app.command()
def verb(out: str) -> None:
    def frames():
        while True:
            yield np.zeros((48, 64, 3), np.uint8)
            print("frame", flush=True)
            time.sleep(0.02)
    write_video(out, frames())

sys.exit(run_app(app))
"""
"""Script of a verb that writes a video without an end."""

PRINT = """
import sys, typer
from xdub.cli.errors import run_app

app = typer.Typer()

@app.command()
def verb(lines: int) -> None:
    for n in range(lines):
        typer.echo(f"line {n}")

sys.exit(run_app(app))
"""
"""Script of a verb that prints."""


def start(script: str, *arguments: str, before: str = "") -> subprocess.Popen[str]:
    """Start a script, after statements ``before``, and return its process."""
    command = [sys.executable, "-c", before + script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_file_prints_one_line_and_is_the_exit_code(number: int, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("old")
    # The tests themselves may run under nohup.
    heard = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    process = start(WRITE, str(tmp_path / "out.mp4"), before=heard)
    assert process.stdout is not None and process.stdout.readline() == "frame\n"
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    name = signal.Signals(number).name
    assert errors == f"xdub: stopped by {name}; the same command continues where it can\n"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.mp4", "old")]


def test_a_verb_under_nohup_survives_the_end_of_its_terminal(tmp_path: Path) -> None:
    ignored = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = start(WRITE, str(tmp_path / "out.mp4"), before=ignored)
    assert process.stdout is not None and process.stdout.readline() == "frame\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lines", [3, 100_000])
def test_a_reader_that_leaves_ends_the_verb_quietly(lines: int) -> None:
    process = start(PRINT, str(lines))
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=20) == 141
    process.stderr.close()


def test_the_handler_of_sigterm_that_ray_sets_has_the_same_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer()

    @app.command()
    def verb() -> None:
        sys.exit(signal.SIGTERM)

    assert run_app(app, []) == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
