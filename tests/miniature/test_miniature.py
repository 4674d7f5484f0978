"""The networks of `xdub weights mini` have the formats that the product reads, and the same bytes for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xdub.config import PHASES, load_recipe, network_digests
from xdub.errors import UserError
from xdub.headers import check_networks
from xdub.miniature import write_miniature
from xdub.miniature.sizes import sizes_of

STAGES = (*PHASES, "pairs")
"""Stages that load networks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini") / "w"
    write_miniature(load_recipe("mini"), folder)
    return folder


@pytest.mark.parametrize(("kind", "channels", "side"), [("wan", 16, 8), ("wan2.2", 48, 4)])
def test_the_codecs_divide_a_video_as_the_real_ones_do(folder: Path, kind, channels, side) -> None:
    from xdub.model.codec import load_codec

    recipe = load_recipe("mini", [f"weights={folder}", f"codec.kind={kind}", f"codec.channels={channels}"])
    codec = load_codec(recipe.codec)
    z = codec.encode(torch.rand(1, 3, 5, 64, 64) * 2 - 1)
    assert z.shape == (1, channels, 2, side, side)
    assert codec.decode(z).shape == (1, 3, 5, 64, 64)


def test_the_other_networks_of_the_recipe_load_from_the_folder(folder: Path) -> None:
    from xdub.model.audio_encoder import load_audio_encoder
    from xdub.perception.features import load_features
    from xdub.perception.identity.load import load_identity
    from xdub.perception.syncnet.load import load_sync

    recipe = load_recipe("mini", [f"weights={folder}"])
    check_networks(recipe, STAGES)
    assert load_audio_encoder(recipe.audio).encode(np.zeros(16000, np.float32)).shape == (
        50,
        recipe.audio.dim,
    )
    faces = torch.rand(2, 3, 64, 64) * 2 - 1
    assert load_identity(recipe.perception)(faces).shape == (2, 32)
    assert load_features(recipe.perception)(faces).shape == (2, 32)
    assert load_sync(recipe.perception).name == "syncnet-v2"


@pytest.mark.parametrize("kind", ["whisper+wav2vec2", "hubert"])
def test_the_audio_encoders_of_the_published_editors_load_from_the_folder(folder: Path, kind: str) -> None:
    from xdub.model.audio_encoder import load_audio_encoder

    recipe = load_recipe("mini", [f"weights={folder}", f"audio.kind={kind}"])
    check_networks(recipe, STAGES)
    wav = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    rows = load_audio_encoder(recipe.audio).encode(wav)
    assert rows.shape == (50, recipe.audio.dim) and bool(rows.isfinite().all())
    digest = network_digests(recipe, STAGES)["audio"]
    assert digest != network_digests(load_recipe("mini", [f"weights={folder}"]), STAGES)["audio"]


def test_the_text_encoder_is_one_of_transformers(folder: Path) -> None:
    from transformers import UMT5EncoderModel

    encoder = UMT5EncoderModel.from_pretrained(folder / "umt5")
    assert encoder(torch.tensor([[1, 2, 3]])).last_hidden_state.shape == (1, 3, 32)


def test_a_seed_gives_the_same_bytes_and_another_seed_other_weights(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe("mini")
    random = torch.get_rng_state()
    write_miniature(recipe, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), random)
    write_miniature(recipe, tmp_path / "other", seed=1)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert all((folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)
    first, other = (
        network_digests(load_recipe("mini", [f"weights={path}"]), STAGES)
        for path in (folder, tmp_path / "other")
    )
    assert first.keys() == other.keys() and not set(first.values()) & set(other.values())


def test_only_a_miniature_is_replaced(tmp_path: Path) -> None:
    recipe, out = load_recipe("mini"), tmp_path / "w"
    write_miniature(recipe, out)
    write_miniature(recipe, out)
    (out / "whisper" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="whisper would be lost"):
        write_miniature(recipe, out)
    assert (out / "whisper" / "notes.txt").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_text("mine")
    with pytest.raises(UserError, match="holds files that are no miniature"):
        write_miniature(recipe, tmp_path / "mine")
    with pytest.raises(UserError, match="is not a folder"):
        write_miniature(recipe, tmp_path / "mine" / "model.safetensors")


def test_another_recipe_gets_its_own_networks_at_their_true_widths(tmp_path: Path) -> None:
    from xdub.model.audio_encoder import load_audio_encoder

    recipe = load_recipe("small", [f"weights={tmp_path / 'w'}", "codec.kind=linear", "codec.channels=48"])
    rows = write_miniature(recipe, tmp_path / "w")
    assert [row.name for row in rows] == ["whisper"]
    assert load_audio_encoder(recipe.audio).dim == 384
    with pytest.raises(UserError, match="recipe tiny needs no weights"):
        write_miniature(load_recipe("tiny"), tmp_path / "tiny")


def test_any_width_of_whisper_is_written_or_rejected_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="audio.dim=33: the width of a Whisper is even"):
        write_miniature(load_recipe("mini", ["audio.dim=33"]), tmp_path / "odd")
    assert not list(tmp_path.iterdir())
    for width in (34, 130, 200, 1280):
        sizes = sizes_of(load_recipe("small", [f"audio.dim={width}", f"model.text_dim={width}"]))
        assert width % sizes.whisper_heads == 0 and width % sizes.text_heads == 0


def test_the_recipe_changes_only_sizes_and_the_thresholds_of_random_judges() -> None:
    mini, base = load_recipe("mini").to_dict(), load_recipe("xdub-1b").to_dict()

    def differing(left: dict, right: dict, path: str = "") -> set[str]:
        keys = set()
        for key in left.keys() | right.keys():
            a, b = left.get(key), right.get(key)
            both = isinstance(a, dict) and isinstance(b, dict)
            keys |= differing(a, b, f"{path}{key}.") if both else ({f"{path}{key}"} if a != b else set())
        return keys

    sizes = {"size", "clip_frames", "dim", "hidden_size", "num_heads", "num_layers", "rank", "alpha", "steps"}
    sizes |= {"workers", "global_batch", "warmup", "checkpoint_every", "keep_checkpoints", "log_every"}
    sizes |= {"sample_every", "window", "micro_batch", "sampler_steps", "batch", "name"}
    others = {path for path in differing(mini, base) if path.rpartition(".")[2] not in sizes}
    judged = {"pairs.identity_threshold", "pairs.mouth_threshold", "pairs.require_other_utterance"}
    assert others == judged | {"phases.lip.sync_accuracy", "masks.face"}
    assert mini["phases"]["lip"]["alpha"] == base["phases"]["lip"]["alpha"]
