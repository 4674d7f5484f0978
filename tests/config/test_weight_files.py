"""Locations of networks: names in one folder, paths of their own, and the stages that load them."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import DUB, PAIRS, load_recipe, network_path, network_settings, recipe_from_dict
from xdub.config.weight_files import NETWORKS, idle_networks, used_networks
from xdub.errors import UserError


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
    recipe = load_recipe("xdub-1b", [f"weights={folder}"])
    with pytest.raises(UserError) as error:
        network_path(recipe.perception, "identity")
    assert str(error.value).startswith("perception.identity=arcface needs its weights, and weights=")
    assert "w has no arcface.pth" in str(error.value) and "\n" not in str(error.value)
    missing = load_recipe("xdub-1b", [f"weights={tmp_path}/gone"])
    with pytest.raises(UserError, match="weights=.*gone: there is no such folder; `xdub weights mini"):
        network_path(missing.codec, "codec")


def test_a_network_is_named_with_the_first_stage_that_loads_it() -> None:
    recipe = load_recipe("xdub-1b", ["perception.sync_path=/syncnet"])
    uses = {use.role: use.stage for use in used_networks(recipe, ("generator", PAIRS, "texture", DUB))}
    assert uses == {"codec": "", "audio": "", "identity": PAIRS, "features": "texture"}
    assert [use.role for use in used_networks(recipe, ("syncnet",))] == ["codec"]
    assert [use.role for use in idle_networks(recipe, ("generator",))] == ["sync"]
    assert network_settings(recipe) == {"perception.sync_path": "/syncnet"}
