"""Every verb has help with an example; an error of the user is one line and exit code 2, a bug a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import typer

from xdub.cli import app
from xdub.cli.errors import run_app, user_line
from xdub.errors import UserError

VERBS = [
    *("demo", "dub", "render", "prepare", "pairs", "import-pairs", "export", "train", "bootstrap"),
    *("encode", "speakers", "review", "plan", "doctor", "submit"),
]
GROUPS = ["eval", "runs", "weights", "jobs", "data"]


def commands(group: typer.Typer, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command below a group."""
    words = []
    for command in group.registered_commands:
        assert command.callback is not None
        words.append((*prefix, command.name or command.callback.__name__.replace("_", "-")))
    for sub in group.registered_groups:
        assert sub.typer_instance is not None and sub.name
        words += commands(sub.typer_instance, (*prefix, sub.name))
    return words


ALL = commands(app)


def raising(error: BaseException) -> int:
    """Return the exit code of a command line whose only verb raises ``error``."""
    broken = typer.Typer()

    @broken.command()
    def verb() -> None:
        raise error

    return run_app(broken, [])


def test_the_verbs_are_the_documented_ones():
    assert {words[0] for words in ALL} == set(VERBS) | set(GROUPS)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_has_an_example_that_names_the_verb(words, capsys):
    assert run_app(app, [*words, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: xdub {' '.join(words)}" in text


@pytest.mark.parametrize(
    "args",
    [
        ["bogus"],
        ["demo", "--bogus"],
        ["train"],
        ["train", "lips", "--recipe", "tiny", "--data", ".", "--out", "run"],
        ["train", "lip", "--recipe", "tiny", "--data", "nowhere", "--out", "run"],
        ["import-pairs", "--out", "x"],
        ["render", "--out", "x", "--clips", "0"],
        ["render", "--out", "x", "--clips", "many"],
        ["dub", "--video", "nowhere.mp4", "--audio", "nowhere.wav", "--out", "x.mp4"],
        ["demo", "--seed", "-1"],
        ["demo", "--minutes", "inf"],
        ["eval", "score", "--video", "nowhere.mp4", "--reference", "nowhere.mp4"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_code_2(args, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_app(app, args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("xdub: error: ") and printed.err.count("\n") == 1
    assert "xdub" in printed.err.removeprefix("xdub: error: ") and "--help" in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["render", "prepare", "pairs", "import-pairs", "train", "bootstrap"])
def test_an_unknown_recipe_key_is_found_before_any_work(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "ds"
    data.mkdir()
    rest = {
        "render": ["--clips", "1"],
        "prepare": [str(data)],
        "import-pairs": [str(data)],
        "pairs": ["--recipe", "tiny", "--generator", str(data), "--data", str(data)],
        "train": ["lip", "--recipe", "tiny", "--data", str(data)],
        "bootstrap": ["--recipe", "tiny", "--data", str(data)],
    }[verb]
    assert run_app(app, [verb, *rest, "--out", "out", "--set", "train.lrr=1"]) == 2
    assert capsys.readouterr().err.startswith(
        "xdub: error: unknown recipe key train.lrr (did you mean train.lr?)"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("group", [[], ["eval"], ["runs"], ["weights"]], ids=" ".join)
def test_without_a_command_the_help_is_shown_with_an_error(group, capsys):
    assert run_app(app, group) == 2
    printed = capsys.readouterr()
    assert "Usage" in printed.out
    assert printed.err.startswith("xdub: error: no command was given; see xdub ")


def test_a_user_error_is_printed_as_one_line(capsys):
    assert raising(UserError("talk.wav has no picture:\n  give a video")) == 2
    assert capsys.readouterr().err == "xdub: error: talk.wav has no picture: give a video\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(number, capsys):
    assert raising(OSError(number, os.strerror(number), "/disk/shard.parquet")) == 2
    assert "no space left on the disk at /disk/shard.parquet" in capsys.readouterr().err


def test_a_missing_or_forbidden_file_is_named(capsys):
    assert raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "x.mp4")) == 2
    assert capsys.readouterr().err == "xdub: error: x.mp4: No such file or directory\n"
    assert raising(PermissionError(errno.EACCES, "Permission denied", "out")) == 2


def test_a_user_error_is_found_through_wrappers():
    class RemoteError(RuntimeError):
        """An error like Ray's: its text is a traceback, and its cause an attribute."""

        def __init__(self, cause: BaseException) -> None:
            super().__init__("Traceback (most recent call last):\n  ...")
            self.cause = cause

    wrapped = RuntimeError("job failed")
    wrapped.__cause__ = RemoteError(UserError("clip 7 has no face"))
    assert user_line(wrapped) == "clip 7 has no face"

    gathered = RuntimeError("training failed")
    gathered.worker_failures = {0: RemoteError(OSError(errno.ENOSPC, "No space left on device"))}  # type: ignore[attr-defined]
    assert "no space left" in (user_line(gathered) or "")


def test_an_outer_error_that_adds_the_file_to_the_line_is_printed():
    inner = UserError("no recipe 'b.yaml'")
    outer = UserError(f"mine.yaml: base: {inner}")
    outer.__cause__ = inner
    assert user_line(outer) == "mine.yaml: base: no recipe 'b.yaml'"
    unrelated = UserError("OUT is damaged")
    unrelated.__cause__ = inner
    assert user_line(unrelated) == "no recipe 'b.yaml'"
    remote = UserError(f"Traceback (most recent call last):\n{outer}")
    remote.__cause__ = outer
    assert user_line(remote) == str(outer)


def test_a_user_error_takes_precedence_over_the_os_error_behind_it():
    error = UserError("out/o.mp4: the disk is full; free some space in out and run again")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "out/.o.x7f.mp4")
    assert user_line(error) == str(error)


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError("x"), OSError(errno.EIO, "I/O error", "f"), RuntimeError("x")]
)
def test_an_unexpected_error_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        raising(error)


def test_an_interrupt_ends_with_130(capsys):
    assert raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.startswith("xdub: interrupted")


def test_the_installed_script_prints_its_version_quickly():
    run = subprocess.run(
        [sys.executable, "-c", "from xdub.cli import main; main()", "--version"],
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "xdub 0.1.0\n")


def test_no_package_reports_usage(monkeypatch):
    from xdub.runtime_env import SETTINGS, prepare_environment

    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    prepare_environment()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
    assert os.environ["RAY_DEDUP_LOGS"] == "0"  # a value of the user is kept


@pytest.mark.parametrize(
    "args",
    [
        ["plan", "--recipe", "tiny", "--gpus", "1", "--gpu", "h200", "--json"],
        ["runs", "compare", "nowhere", "nowhere-else", "--out"],
    ],
    ids=["plan", "compare"],
)
@pytest.mark.parametrize("name", ["missing/out.html", "folder", "x" * 256])
def test_an_output_that_cannot_be_written_is_known_before_the_work(args, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert run_app(app, [*args, name]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and name in printed.err and printed.err.count("\n") == 1
    assert "does not exist; create" in printed.err or "directory" in printed.err or "too long" in printed.err
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
