"""A model folder is loaded with the codec and the audio encoder that it was trained with, wherever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import Recipe, load_recipe
from xdub.errors import UserError
from xdub.miniature.networks import write_whisper
from xdub.miniature.sizes import Sizes
from xdub.model.bundle_networks import NETWORKS, check_recorded_networks, record_networks


def with_encoder(path: Path) -> Recipe:
    return load_recipe("tiny", ["audio.kind=whisper", "audio.dim=32", f"audio.path={path}"])


def test_a_model_is_not_loaded_with_another_audio_encoder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_whisper(tmp_path / name, Sizes())
    model = tmp_path / "model"
    model.mkdir()
    record_networks(with_encoder(tmp_path / "a"), model)
    (tmp_path / "a").rename(tmp_path / "moved here")
    check_recorded_networks(with_encoder(tmp_path / "moved here"), model)
    with pytest.raises(UserError, match="trained with another audio network .* --set weights=DIR"):
        check_recorded_networks(with_encoder(tmp_path / "b"), model)
    # One changed byte makes another network.
    weights = tmp_path / "moved here" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="another audio network"):
        check_recorded_networks(with_encoder(tmp_path / "moved here"), model)
    (model / NETWORKS).write_text("[3]")
    with pytest.raises(UserError, match="is damaged"):
        check_recorded_networks(with_encoder(tmp_path / "b"), model)


def test_a_model_without_networks_of_others_has_no_record(tmp_path: Path) -> None:
    record_networks(load_recipe("tiny"), tmp_path)
    assert not list(tmp_path.iterdir())
    # A model of an earlier version has no record either.
    write_whisper(tmp_path / "whisper", Sizes())
    check_recorded_networks(with_encoder(tmp_path / "whisper"), tmp_path)
