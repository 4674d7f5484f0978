"""What is caught before a job travels to the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.cli.submitting import VERBS
from xdub.errors import UserError
from xdub.submit.command import check_command, check_environment
from xdub.submit.versions import differences, versions


def check(*words: str, files: tuple[Path, ...] = ()):
    return check_command(words[:1], VERBS[words[:1]], words[1:], files)


def test_arguments_travel_as_they_are() -> None:
    told = (
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
    command = check("train", *told)
    assert (command.verb, command.arguments) == (("train",), told)
    assert (command.out, command.files) == ("/run", ())


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("train", "lip", "--data", "ds", "--out", "/run"), "--data ds: a relative path"),
        (("train", "lip", "--data", "/ds", "--out", "run"), "--out run: a relative path"),
        (("train", "lip", "--outt", "/run"), "--outt is no option of this verb; it has --base"),
        (("train", "lip", "--out"), "--out needs a value"),
        (("bootstrap", "--recipe", "tinny", "--data", "/ds", "--out", "/run"), "tinny"),
        (("bootstrap", "--recipe", "tiny", "--set", "train.stepz=1"), "stepz"),
        (("prepare", "talk.mp4", "--out", "/ds"), "talk.mp4: a relative path"),
    ],
)
def test_a_mistake_is_told_here_in_one_line(told: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as error:
        check(*told)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_recipe_file_goes_along_by_name(tmp_path: Path) -> None:
    from xdub.config import load_recipe

    recipe = tmp_path / "mine.yaml"
    recipe.write_text(load_recipe("tiny").to_yaml())
    command = check("bootstrap", "-r", str(recipe), "--data", "/ds", "--out", "/run")
    assert command.arguments[1] == "mine.yaml" and command.files == (recipe,)


def test_a_file_that_goes_along_may_be_named_by_its_local_path(tmp_path: Path) -> None:
    talk = tmp_path / "talk.mp4"
    talk.touch()
    command = check("prepare", str(talk), "--out", "/ds", files=(talk,))
    assert command.arguments[0] == "talk.mp4"
    with pytest.raises(UserError, match="same name"):
        check("prepare", "--out", "/ds", files=(talk, tmp_path / "other" / "talk.mp4"))


def test_secrets_are_not_put_into_a_jobs_environment() -> None:
    assert check_environment(["MLFLOW_TRACKING_URI=http://mlflow:5000", "A="]) == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "A": "",
    }
    for told in (
        "AWS_SECRET_ACCESS_KEY=x",
        "MLFLOW_TRACKING_TOKEN=x",
        "DB_PASSWORD=x",
        "URI=http://me:word@host",
    ):
        with pytest.raises(UserError, match="looks like a secret") as error:
            check_environment([told])
        assert told.partition("=")[2] not in str(error.value).replace(told.partition("=")[0], "")
    for told in ("novalue", "1A=x", "A-B=x"):
        with pytest.raises(UserError, match="NAME=VALUE"):
            check_environment([told])


def test_versions_that_differ_are_named_and_local_builds_are_the_same() -> None:
    here = versions()
    assert differences(here, here) == []
    there = here | {
        "torch": here["torch"].split("+")[0] + "+cu130",
        "python": here["python"].rsplit(".", 1)[0] + ".99",
    }
    assert differences(here, there) == []
    assert differences(here, here | {"ray": "2.1.0"}) == [f"ray {here['ray']} here, 2.1.0 there"]
    assert differences(here, here | {"torch": "1.0.0"}) == [f"torch {here['torch']} here, 1.0.0 there"]
