"""Workers and model folders get absolute paths, and digests know a network wherever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import load_recipe, located, network_digests, without_paths
from xdub.errors import UserError
from xdub.files.content import content_digest


def test_paths_become_absolute_and_names_on_the_hub_stay(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").mkdir()
    settings = ["weights=w", "audio.path=openai/whisper-tiny", "perception.sync_path=w"]
    recipe = located(load_recipe("xdub-1b", settings))
    assert recipe.weights == recipe.perception.sync_path == str(tmp_path / "w")
    assert recipe.audio.path == "openai/whisper-tiny" and recipe.codec.weights == recipe.weights
    assert load_recipe("xdub-1b", settings).weights == "w"


def test_two_recipes_with_networks_in_other_places_are_equal_without_paths() -> None:
    first = load_recipe("xdub-1b", ["weights=a", "codec.path=b", "perception.features_path=c"]).to_dict()
    assert without_paths(first) == load_recipe("xdub-1b").to_dict() and first["weights"] == "a"


def test_a_digest_follows_weights_and_configuration_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text("x")
    (tmp_path / "b" / "README.md").write_text("text")
    (tmp_path / "b" / "model.bin").write_text("another format of the same weights")
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text("{1}")
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no model"):
        content_digest(tmp_path / "empty")


def test_the_autoencoder_of_a_pipeline_is_known_by_its_own_folder(tmp_path: Path) -> None:
    for folder in ("vae", "pipeline/vae"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    digests = [
        network_digests(
            load_recipe("xdub-1b", [f"codec.path={tmp_path / name}", "audio.path=a/b"]), ("editor",)
        )
        for name in ("vae", "pipeline")
    ]
    assert digests[0] == digests[1] and digests[0]["audio"] == "a/b"
