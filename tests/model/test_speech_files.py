"""Files of the published editors' audio encoders: X-Dub's own layout, folders of transformers, and wrong files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from xdub.config import AudioConfig, Recipe, load_recipe
from xdub.config.speech_parts import speech_digest
from xdub.errors import UserError
from xdub.headers import check_networks
from xdub.miniature.sizes import Sizes
from xdub.miniature.speech import write_hubert, write_joined
from xdub.model.audio_encoder import load_audio_encoder
from xdub.perception.openai_whisper import read_openai_whisper, transformers_names

WIDTHS = Sizes().joined


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both networks of X-Dub in its own layout, and HuBERT's."""
    folder = tmp_path_factory.mktemp("release")
    torch.manual_seed(0)
    write_joined(folder, Sizes())
    write_hubert(folder / "hubert-large-ll60k", Sizes())
    return folder


def joined(folder: Path, **fields: int) -> AudioConfig:
    return AudioConfig(kind="whisper+wav2vec2", path=str(folder), **({"dim": sum(WIDTHS)} | fields))


def large(folder: Path) -> AudioConfig:
    return AudioConfig(kind="hubert", dim=32, path=str(folder))


def recipe_of(audio: AudioConfig) -> Recipe:
    return load_recipe(
        "tiny", [f"audio.kind={audio.kind}", f"audio.dim={audio.dim}", f"audio.path={audio.path}"]
    )


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_twice(audio: AudioConfig) -> str:
    """Return the line of the check of headers; loading refuses the files, too."""
    refused(lambda: load_audio_encoder(audio))
    return refused(lambda: check_networks(recipe_of(audio), ("editor",)))


def test_openais_file_and_a_transformers_folder_of_the_same_weights_give_equal_features(
    release: Path, tmp_path: Path
) -> None:
    file = release / "whisper" / "large-v2.pt"
    content = read_openai_whisper(file)
    config = WhisperConfig(
        d_model=WIDTHS[0],
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=4 * WIDTHS[0],
        decoder_layers=1,
        decoder_attention_heads=2,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = WhisperModel(config)
    model.encoder.load_state_dict(transformers_names(content.weights, file))
    model.save_pretrained(tmp_path / "whisper-large-v2")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "whisper-large-v2")
    shutil.copytree(release / "wav2vec2-base-960h", tmp_path / "wav2vec2")
    wav = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    one, other = (load_audio_encoder(joined(folder)).encode(wav) for folder in (release, tmp_path))
    assert torch.equal(one, other) and float(one.std()) > 0.1
    for folder in (release, tmp_path):
        check_networks(recipe_of(joined(folder)), ("editor",))


def test_a_digest_is_that_of_the_two_networks_alone(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(release, folder)
    (folder / "X-Dub_model.safetensors").write_bytes(b"editor")
    assert speech_digest(folder) == speech_digest(release)
    (folder / "wav2vec2-base-960h" / "config.json").write_text("{}")
    assert speech_digest(folder) != speech_digest(release)


def test_a_missing_or_foreign_network_is_named(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert f"{folder} has no whisper" in refused(lambda: load_audio_encoder(joined(folder)))
    shutil.copytree(release, folder)
    assert "audio.dim=40, but Whisper and wav2vec2" in refused_twice(joined(folder, dim=40))
    shutil.rmtree(folder / "wav2vec2-base-960h")
    assert "has no wav2vec2 (wav2vec2-base-960h or wav2vec2)" in refused_twice(joined(folder))
    shutil.copytree(release / "hubert-large-ll60k", folder / "wav2vec2")
    line = refused(lambda: check_networks(recipe_of(joined(folder)), ("editor",)))
    assert "holds hubert, not a wav2vec2" in line
    file = folder / "whisper" / "large-v2.pt"
    torch.save({"conv1.weight": torch.zeros(2)}, file)
    assert "not OpenAI's file of a Whisper: it has no `dims`" in refused_twice(joined(folder))
    file.write_bytes(file.read_bytes()[:200])
    assert f"{file}: not OpenAI's file of a Whisper (" in refused_twice(joined(folder))


def test_an_unknown_or_missing_weight_of_openais_encoder_is_named(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "x")
    file = tmp_path / "x" / "whisper" / "large-v2.pt"
    content = torch.load(file, weights_only=True)
    state = content["model_state_dict"]
    torch.save(content | {"model_state_dict": state | {"encoder.extra": torch.zeros(1)}}, file)
    assert "its encoder has a weight encoder.extra" in refused(
        lambda: load_audio_encoder(joined(tmp_path / "x"))
    )
    del state["encoder.blocks.0.mlp.0.weight"]
    torch.save(content, file)
    line = refused(lambda: load_audio_encoder(joined(tmp_path / "x")))
    assert "layers.0.fc1.weight" in line and str(file) in line
    state["encoder.blocks.0.mlp.0.weight"] = torch.full((80, 20), torch.nan)
    torch.save(content, file)
    line = refused(lambda: load_audio_encoder(joined(tmp_path / "x")))
    assert "layers.0.fc1.weight have values that are not finite" in line


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("do_stable_layer_norm", False, "no HuBERT large, whose blocks normalise"),
        ("num_hidden_layers", 11, "holds a HuBERT of 11 blocks"),
        ("hidden_size", 16, "its weights are not those of its config.json"),
        ("model_type", "wav2vec2", "holds wav2vec2, not a hubert"),
        ("conv_stride", [5, 2, 2, 2, 2, 2, 1], "its rows are 160 samples apart"),
    ],
)
def test_another_hubert_is_refused_by_its_configuration(
    release: Path, tmp_path: Path, field: str, value: object, words: str
) -> None:
    folder = tmp_path / "hubert"
    shutil.copytree(release / "hubert-large-ll60k", folder)
    check_networks(recipe_of(large(folder)), ("editor",))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    assert words in refused(lambda: check_networks(recipe_of(large(folder)), ("editor",)))


def test_a_wave_that_is_not_normalised_is_refused(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hubert"
    shutil.copytree(release / "hubert-large-ll60k", folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_normalize": False}))
    assert "does not normalise the wave" in refused_twice(large(folder))
    file.unlink()
    assert "has no preprocessor_config.json" in refused(
        lambda: check_networks(recipe_of(large(folder)), ("editor",))
    )
