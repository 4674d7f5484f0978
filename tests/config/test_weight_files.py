"""Weights that a recipe names are looked for before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import PHASES, check_weights, load_recipe
from xdub.errors import UserError

JOURNEY = (*PHASES, "pairs")


def large(folder: Path, **left_out: bool):
    """`xdub-1b` with all its files below ``folder``, but the keys that are left out."""
    keys = ("codec.path", "audio.path", "perception.identity_path", "perception.sync_path")
    settings = []
    for key in (*keys, "perception.features_path"):
        name = key.partition(".")[2] if key.startswith("perception") else key.partition(".")[0]
        if name not in left_out:
            (folder / name).touch()
            settings.append(f"{key}={folder / name}")
    return load_recipe("xdub-1b", settings)


def test_a_recipe_with_everything_and_the_shipped_one_pass(tmp_path: Path) -> None:
    check_weights(large(tmp_path), JOURNEY)
    check_weights(load_recipe("tiny"), JOURNEY)


@pytest.mark.parametrize(
    ("missing", "stages", "words"),
    [
        ("codec", ("generator",), "codec.kind=wan needs its weights"),
        ("audio", ("generator",), "audio.kind=whisper needs its weights"),
        ("sync_path", JOURNEY, "lip: perception.sync=syncnet needs perception.sync_path, a file of"),
        ("identity_path", ("pairs",), "pairs: perception.identity=arcface needs perception.identity_path"),
        ("features_path", ("texture",), "texture: perception.features=clip needs perception.features_path"),
    ],
)
def test_what_a_late_stage_needs_is_asked_for_at_once(tmp_path, missing, stages, words) -> None:
    with pytest.raises(UserError) as error:
        check_weights(large(tmp_path, **{missing: True}), stages)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_no_stage_uses_may_be_missing(tmp_path: Path) -> None:
    recipe = large(tmp_path, sync_path=True, identity_path=True, features_path=True)
    check_weights(recipe, ("generator", "editor"))


def test_a_path_that_is_not_there_is_named_and_a_hub_name_passes(tmp_path: Path) -> None:
    recipe = load_recipe("xdub-1b", [f"codec.path={tmp_path / 'gone'}", "audio.path=openai/whisper-large-v3"])
    with pytest.raises(UserError, match=r"codec\.path=.*/gone: there is no such file or folder"):
        check_weights(recipe, ("generator",))
