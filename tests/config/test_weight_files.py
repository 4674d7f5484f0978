"""Check of the weight files that a recipe names, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import PHASES, Recipe, check_weights, load_recipe, network_path, recipe_from_dict
from xdub.config.weight_files import NETWORKS
from xdub.errors import UserError

ALL_STAGES = (*PHASES, "pairs")
"""Stages of a bootstrap that load weights."""

KEYS = (
    "codec.path",
    "audio.path",
    "perception.identity_path",
    "perception.sync_path",
    "perception.features_path",
)


def large(folder: Path, **paths: str | None) -> Recipe:
    """Load `xdub-1b` with a file below ``folder`` for every path that ``paths`` does not set; None omits a path."""
    settings = []
    for key in KEYS:
        file = folder / key
        file.touch()
        path = paths.get(key, str(file))
        if path is not None:
            settings.append(f"{key}={path}")
    return load_recipe("xdub-1b", settings)


def test_a_recipe_with_all_weights_and_the_shipped_recipe_pass(tmp_path: Path) -> None:
    check_weights(large(tmp_path), ALL_STAGES)
    check_weights(load_recipe("tiny"), ALL_STAGES)


@pytest.mark.parametrize(
    ("missing", "stages", "words"),
    [
        ("codec.path", ("generator",), "codec.kind=wan needs its weights"),
        ("audio.path", ("generator",), "audio.kind=whisper needs its weights"),
        (
            "perception.sync_path",
            ALL_STAGES,
            "lip: perception.sync=syncnet needs its weights",
        ),
        (
            "perception.identity_path",
            ("pairs",),
            "pairs: perception.identity=arcface needs its weights",
        ),
        (
            "perception.features_path",
            ("texture",),
            "texture: perception.features=clip needs its weights",
        ),
    ],
)
def test_a_path_that_a_late_stage_needs_is_required_before_the_first(
    tmp_path, missing, stages, words
) -> None:
    with pytest.raises(UserError) as error:
        check_weights(large(tmp_path, **{missing: None}), stages)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_paths_that_no_stage_uses_may_be_missing(tmp_path: Path) -> None:
    recipe = large(tmp_path, **dict.fromkeys(KEYS[2:]))
    check_weights(recipe, ("generator", "editor"))


@pytest.mark.parametrize("key", ["codec.path", "audio.path"])
def test_an_error_names_a_path_that_does_not_exist(tmp_path: Path, key: str) -> None:
    recipe = large(tmp_path, **{key: str(tmp_path / "gone")})
    with pytest.raises(UserError, match=rf"{key}=.*/gone: there is no such file or folder"):
        check_weights(recipe, ("generator",))


@pytest.mark.parametrize(
    ("key", "name"),
    [("codec.path", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"), ("audio.path", "openai/whisper-large-v3")],
)
def test_a_hub_name_passes_without_a_folder_of_that_name(tmp_path: Path, key: str, name: str) -> None:
    check_weights(large(tmp_path, **{key: name}), ("generator",))


def test_a_name_with_more_parts_than_a_hub_name_must_exist(tmp_path: Path) -> None:
    recipe = large(tmp_path, **{"audio.path": "openai/whisper/large"})
    with pytest.raises(UserError, match="audio.path=openai/whisper/large: there is no such file or folder"):
        check_weights(recipe, ("generator",))


def folder_of_weights(tmp_path: Path) -> Path:
    """Create an empty file for every network that a weights folder may hold."""
    folder = tmp_path / "w"
    folder.mkdir()
    for entry in NETWORKS:
        for name in entry.names:
            (folder / name).touch()
    return folder


def test_one_folder_serves_all_networks_of_a_recipe(tmp_path: Path) -> None:
    folder = folder_of_weights(tmp_path)
    recipe = load_recipe("xdub-1b", [f"weights={folder}"])
    check_weights(recipe, ALL_STAGES)
    assert network_path(recipe.codec, "codec") == str(folder / "wan2.1-vae")
    assert network_path(recipe.audio, "audio") == str(folder / "whisper")
    assert network_path(recipe.perception, "sync") == str(folder / "syncnet.safetensors")
    (folder / "syncnet.safetensors").unlink()
    assert network_path(recipe.perception, "sync") == str(folder / "syncnet_v2.model")
    other = load_recipe("xdub-1b", [f"weights={folder}", "codec.kind=wan2.2", "codec.channels=48"])
    assert network_path(other.codec, "codec") == str(folder / "wan2.2-vae")
    assert other.codec.geometry.space == 16


def test_a_path_of_its_own_wins_over_the_folder_and_packaged_networks_need_neither(tmp_path: Path) -> None:
    folder = folder_of_weights(tmp_path)
    recipe = load_recipe("xdub-1b", [f"weights={folder}", "codec.path=/vae", "perception.identity=dlib"])
    assert network_path(recipe.codec, "codec") == "/vae"
    assert network_path(recipe.perception, "identity") is None
    assert network_path(load_recipe("tiny", [f"weights={folder}"]).codec, "codec") is None


def test_a_recipe_is_written_with_the_folder_and_without_derived_paths(tmp_path: Path) -> None:
    recipe = load_recipe("xdub-1b", [f"weights={folder_of_weights(tmp_path)}"])
    raw = recipe.to_dict()
    assert raw["weights"] == str(tmp_path / "w") and raw["codec"]["path"] is None
    assert all("weights" not in raw[section] for section in ("codec", "audio", "perception"))
    assert recipe_from_dict(raw) == recipe


def test_a_folder_without_a_network_is_one_line_that_names_both(tmp_path: Path) -> None:
    folder = folder_of_weights(tmp_path)
    (folder / "arcface.pth").unlink()
    with pytest.raises(UserError) as error:
        check_weights(load_recipe("xdub-1b", [f"weights={folder}"]), ALL_STAGES)
    assert str(error.value).startswith("texture: perception.identity=arcface needs its weights, and weights=")
    assert "w has no arcface.pth" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="weights=.*gone: there is no such folder; `xdub weights mini"):
        check_weights(load_recipe("xdub-1b", [f"weights={tmp_path}/gone"]), ("generator",))
