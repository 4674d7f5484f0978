"""Mistakes in a command are reported before anything is sent to the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from xdub.cli import app
from xdub.cli.submitting import option_kinds
from xdub.errors import UserError
from xdub.submit.command import Command, check_command, check_environment
from xdub.submit.versions import differences, versions


def check(*words: str, files: tuple[Path, ...] = ()) -> Command:
    """Check the command line ``words`` as `xdub submit` does."""
    return check_command(words[:1], option_kinds(get_command(app), words[:1]), words[1:], files)


def test_arguments_are_sent_unchanged() -> None:
    arguments = (
        "generator",
        "--recipe",
        "tiny",
        "--data",
        "/ds",
        "--out=/run",
        "--resume",
        "--set",
        "train.steps=3",
    )
    command = check("train", *arguments)
    assert (command.verb, command.arguments) == (("train",), arguments)
    assert (command.out, command.files) == ("/run", ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "lip", "--data", "ds", "--out", "/run"), "--data ds: a relative path"),
        (("train", "lip", "--data", "/ds", "--out", "run"), "--out run: a relative path"),
        (("train", "lip", "--outt", "/run"), "--outt is not an option of this verb; its options are --base"),
        (("train", "lip", "--out"), "--out needs a value"),
        (("bootstrap", "--recipe", "tinny", "--data", "/ds", "--out", "/run"), "tinny"),
        (("bootstrap", "--recipe", "tiny", "--set", "train.stepz=1"), "stepz"),
        (("prepare", "talk.mp4", "--out", "/ds"), "talk.mp4: a relative path"),
    ],
)
def test_a_mistake_is_reported_on_this_machine_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as error:
        check(*arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_recipe_file_is_sent_and_named_without_its_folder(tmp_path: Path) -> None:
    from xdub.config import load_recipe

    recipe = tmp_path / "mine.yaml"
    recipe.write_text(load_recipe("tiny").to_yaml())
    command = check("bootstrap", "-r", str(recipe), "--data", "/ds", "--out", "/run")
    assert command.arguments[1] == "mine.yaml" and command.files == (recipe,)


def test_an_argument_may_name_a_sent_file_by_its_local_path(tmp_path: Path) -> None:
    talk = tmp_path / "talk.mp4"
    talk.touch()
    command = check("prepare", str(talk), "--out", "/ds", files=(talk,))
    assert command.arguments[0] == "talk.mp4"
    with pytest.raises(UserError, match="same name"):
        check("prepare", "--out", "/ds", files=(talk, tmp_path / "other" / "talk.mp4"))


def test_a_secret_is_refused_as_an_environment_variable() -> None:
    assert check_environment(["MLFLOW_TRACKING_URI=http://mlflow:5000", "A="]) == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "A": "",
    }
    for arguments in (
        "AWS_SECRET_ACCESS_KEY=x",
        "MLFLOW_TRACKING_TOKEN=x",
        "DB_PASSWORD=x",
        "URI=http://me:word@host",
    ):
        with pytest.raises(UserError, match="looks like a secret") as error:
            check_environment([arguments])
        assert arguments.partition("=")[2] not in str(error.value).replace(arguments.partition("=")[0], "")
    for arguments in ("novalue", "1A=x", "A-B=x"):
        with pytest.raises(UserError, match="NAME=VALUE"):
            check_environment([arguments])


def test_differing_versions_are_named_and_local_builds_count_as_the_same() -> None:
    ours = versions()
    assert differences(ours, ours) == []
    cluster = ours | {
        "torch": ours["torch"].split("+")[0] + "+cu130",
        "python": ours["python"].rsplit(".", 1)[0] + ".99",
    }
    assert differences(ours, cluster) == []
    assert differences(ours, ours | {"ray": "2.1.0"}) == [f"ray {ours['ray']} here, 2.1.0 there"]
    assert differences(ours, ours | {"torch": "1.0.0"}) == [f"torch {ours['torch']} here, 1.0.0 there"]
