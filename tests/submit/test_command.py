"""Mistakes in a command are reported before anything is sent to the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from xdub.cli import app
from xdub.cli.submitting import VERBS, option_kinds
from xdub.errors import UserError
from xdub.submit.command import Command, check_command, check_environment, check_name, job_name
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
        (
            ("train", "lip", "--outt", "/run"),
            "--outt is not an option of this verb; its options are --accept-licence, --base",
        ),
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


def test_an_examination_is_sent_even_if_this_machine_has_wrong_networks(tmp_path: Path) -> None:
    """The job's table has the faults of the cluster's files; only paths that the cluster cannot have are refused."""
    (tmp_path / "whisper").mkdir()
    setting = f"weights={tmp_path}"
    arguments = ("--recipe", "xdub-1b", "--set", setting, "--quick", "--json", "/shared/doctor.json")
    command = check("doctor", *arguments)
    assert (command.arguments, job_name(command)) == (arguments, "doctor")
    with pytest.raises(UserError, match="weights=w: a relative path means nothing on the cluster"):
        check("doctor", "--recipe", "xdub-1b", "--set", "weights=w")


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


@pytest.mark.parametrize(
    "name", ["team/run1", "a#b", "a?b", "a b", "a%2Fb", "", ".", "..", "-x", "é", "a\nb", "a\n", "x" * 101]
)
def test_a_name_that_a_url_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--name .*: a name has 1 to 100 letters") as error:
        check_name(name)
    assert "\n" not in str(error.value)


def test_a_common_name_is_used_as_it_is() -> None:
    for name in ("run1", "Team_A.run-1", "x" * 100):
        assert check_name(name) == name


def test_the_name_of_a_job_is_that_of_its_output_folder() -> None:
    assert job_name(check("train", "lip", "--out", "/runs/my.run_1/")) == "train-lip-my.run_1"


def test_other_output_folders_have_different_names_that_fit_a_url() -> None:
    folders = ["日本", "中国", "a b", "a-b", "a#b", "q?a", "x" * 240, "x" * 239 + "y", "-", "é"]
    names = [job_name(check("render", "--out", f"/runs/{folder}")) for folder in folders]
    assert len(set(names)) == len(folders)
    assert [check_name(name) for name in names] == names
    assert names == [job_name(check("render", "--out", f"/runs/{folder}")) for folder in folders]


@pytest.mark.parametrize("text", ["=x", "1A=x", "A", "A B=x", "é=x", "A\n=x"])
def test_a_variable_has_a_name_and_a_value(text: str) -> None:
    with pytest.raises(UserError, match=r"--env .*: use NAME=VALUE") as error:
        check_environment([text])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["soon", "-1", "0", "inf", "1e3", ""])
def test_the_time_to_stop_is_a_number_of_seconds(value: str) -> None:
    with pytest.raises(UserError, match=r"--env RAY_JOB_STOP_WAIT_TIME_S=.*: use a whole number of seconds"):
        check_environment([f"RAY_JOB_STOP_WAIT_TIME_S={value}"])
    assert check_environment(["RAY_JOB_STOP_WAIT_TIME_S=600", "A=b\nc"])["A"] == "b\nc"


def test_a_file_whose_name_begins_with_a_dash_is_no_option_of_the_job(tmp_path: Path) -> None:
    talk = tmp_path / "-talk.mp4"
    talk.touch()
    assert check("prepare", str(talk), "--out", "/ds", files=(talk,)).arguments[0] == "./-talk.mp4"


def test_files_that_cannot_be_sent_are_refused(tmp_path: Path) -> None:
    ignore, large, undecodable = tmp_path / ".gitignore", tmp_path / "large.mp4", tmp_path / "\udcff.mp4"
    for path in (ignore, large, undecodable):
        path.touch()
    with large.open("r+b") as file:
        file.truncate(200_000_000)
    for path, words in ((ignore, "rename it"), (large, "90 MB is the most"), (undecodable, "not UTF-8")):
        with pytest.raises(UserError, match=words):
            check("prepare", "--out", "/ds", files=(path,))
    with pytest.raises(UserError, match="not UTF-8"):
        check("prepare", "/talks/\udcff.mp4", "--out", "/ds")


def test_a_recipe_file_is_sent_with_its_bases(tmp_path: Path) -> None:
    recipe, base = tmp_path / "mine.yaml", tmp_path / "base.yaml"
    recipe.write_text("base: base.yaml\nname: mine\n")
    base.write_text("base: tiny\n")
    command = check("bootstrap", "-r", str(recipe), "--data", "/ds", "--out", "/run")
    assert command.files == (recipe, base)
    (tmp_path / "sub").mkdir()
    base.rename(tmp_path / "sub" / "base.yaml")
    recipe.write_text("base: sub/base.yaml\n")
    with pytest.raises(UserError, match="are sent as files of one folder"):
        check("bootstrap", "-r", str(recipe), "--data", "/ds", "--out", "/run")


def test_a_job_that_would_miss_its_networks_is_refused_before_it_is_sent() -> None:
    arguments = ("--recipe", "xdub-1b", "--data", "/ds", "--out", "/run")
    with pytest.raises(UserError, match="codec.kind=wan needs its weights: --set weights=DIR"):
        check("bootstrap", *arguments)
    with pytest.raises(UserError, match="weights=w: a relative path means nothing on the cluster"):
        check("bootstrap", *arguments, "--set", "weights=w")
    check("bootstrap", *arguments, "--set", "weights=/shared/w")


def test_steps_that_write_a_data_set_in_a_bucket_are_submitted() -> None:
    speakers = check(*VERBS[VERBS.index(("speakers",))], "--data", "s3://b/ds")
    imported = check(*VERBS[VERBS.index(("import-pairs",))], "/scenes", "--out", "s3://b/pairs")
    assert (speakers.out, job_name(speakers), imported.out) == ("s3://b/ds", "speakers-ds", "s3://b/pairs")
    with pytest.raises(UserError, match="--data ds: a relative path"):
        check("speakers", "--data", "ds")


def test_networks_of_preparation_are_checked_before_a_job_is_sent() -> None:
    for words in (("prepare", "/talks", "--out", "/ds"), ("speakers", "--data", "/ds")):
        with pytest.raises(UserError, match="weights=w: a relative path means nothing on the cluster"):
            check(*words, "--set", "weights=w")
    with pytest.raises(UserError, match="masks.face=flame needs its weights: --set weights=DIR"):
        check("prepare", "/talks", "--out", "/ds", "--set", "masks.face=flame")
    with pytest.raises(UserError, match="perception.identity=arcface needs its weights"):
        check("speakers", "--data", "/ds", "--recipe", "xdub-1b")
    check("prepare", "/talks", "--out", "/ds", "--recipe", "xdub-1b", "--set", "weights=/shared/w")


def test_a_published_model_needs_an_absolute_folder_and_its_recipe_is_no_file() -> None:
    words = (
        "--data",
        "/ds",
        "--out",
        "/run",
        "--recipe",
        "tbdub-student",
        "--set",
        "weights=/shared/weights",
    )
    check("train", "editor", *words, "--init-from", "tbdub-student:/shared/student")
    with pytest.raises(UserError, match="--init-from tbdub-student:student: a relative path"):
        check("train", "editor", *words, "--init-from", "tbdub-student:student")
