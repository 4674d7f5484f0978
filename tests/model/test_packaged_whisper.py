"""Whisper tiny.en of the registry: its encoder equals the original, and a damaged original is one line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

from xdub.config import AudioConfig, load_recipe
from xdub.errors import UserError
from xdub.headers import check_networks
from xdub.model.audio_encoder import _load_whisper, load_audio_encoder
from xdub.model.ctranslate2_file import read_model_bin
from xdub.model.packaged_whisper import convert_whisper, packaged_whisper

ROWS, COLUMNS = [0, 37, 75, 120, 149], [0, 100, 200, 383]
ORIGINAL = [
    [-0.17325, -0.70381, 0.35663, -0.98233],
    [0.69778, 0.03087, 1.04681, 0.13071],
    [0.67400, -0.21550, 1.00385, 0.14006],
    [-0.19482, -0.46246, 1.42676, -0.87385],
    [-0.21945, 0.24048, -0.09958, -0.61648],
]
"""Some of the features of `wave`, computed by CTranslate2 4.8.5 from the original file in float32."""
ORIGINAL_MEAN, ORIGINAL_STD = -0.009654908, 1.0750456
"""Mean and standard deviation of all features of `wave`, computed likewise."""


def wave() -> np.ndarray:
    """Return three seconds of four gliding tones, whose loudness rises and falls three times a second."""
    t = np.arange(3 * 16_000) / 16_000
    tones = sum(0.1 * np.sin(2 * np.pi * f * t * (1 + 0.1 * t)) for f in (150, 420, 1300, 2600))
    return (tones * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def test_a_recipe_names_tiny_en_and_gets_the_features_of_the_original() -> None:
    features = load_audio_encoder(AudioConfig(kind="whisper", dim=384, path="tiny.en")).encode(wave()).numpy()
    assert features.shape == (150, 384)
    np.testing.assert_allclose(features[np.ix_(ROWS, COLUMNS)], ORIGINAL, atol=1e-4)
    assert features.mean() == pytest.approx(ORIGINAL_MEAN, abs=1e-5)
    assert features.std() == pytest.approx(ORIGINAL_STD, abs=1e-5)
    # The folder is converted once.
    folder = packaged_whisper("tiny.en")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert (packaged_whisper("tiny.en") / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"audio.dim=80, but the encoder at tiny.en has 384"):
        load_audio_encoder(AudioConfig(kind="whisper", dim=80, path="tiny.en"))


def test_tiny_en_is_a_name_that_needs_no_file() -> None:
    settings = ["audio.kind=whisper", "audio.dim=384"]
    check_networks(load_recipe("tiny", [*settings, "audio.path=tiny.en"]), ["generator"])
    with pytest.raises(UserError, match=r"audio.path=tiny.fr: there is no such file or folder"):
        check_networks(load_recipe("tiny", [*settings, "audio.path=tiny.fr"]), ["generator"])


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = WhisperConfig(
            d_model=8,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=12,
            max_source_positions=1500,
        )
        return Network(config).eval()


def variables(network: Network) -> dict[str, np.ndarray]:
    """Return a small encoder's weights under CTranslate2's names, float16, with fused q, k and v."""
    state = {name: value.half().numpy() for name, value in network.state_dict().items()}
    out = {"num_heads": np.array(network.config.encoder_attention_heads, np.int16)}
    out |= {f"{n}/{part}": state[f"{n}.{part}"] for n in ("conv1", "conv2") for part in ("weight", "bias")}
    out |= {"position_encodings/encodings": state["embed_positions.weight"]}
    modules = {"layer_norm": "layer_norm"}
    for n in range(network.config.encoder_layers):
        ours, theirs = f"layers.{n}", f"layer_{n}"
        modules[f"{ours}.self_attn_layer_norm"] = f"{theirs}/self_attention/layer_norm"
        modules[f"{ours}.self_attn.out_proj"] = f"{theirs}/self_attention/linear_1"
        modules[f"{ours}.final_layer_norm"] = f"{theirs}/ffn/layer_norm"
        modules |= {f"{ours}.fc{k + 1}": f"{theirs}/ffn/linear_{k}" for k in (0, 1)}
        fused = [state[f"{ours}.self_attn.{key}_proj.weight"] for key in "qkv"]
        out[f"{theirs}/self_attention/linear_0/weight"] = np.concatenate(fused)
        biases = [state.get(f"{ours}.self_attn.{key}_proj.bias", np.zeros(8, np.float16)) for key in "qkv"]
        out[f"{theirs}/self_attention/linear_0/bias"] = np.concatenate(biases)
    for ours, theirs in modules.items():
        norm = ours.endswith("layer_norm")
        out[f"{theirs}/{'gamma' if norm else 'weight'}"] = state[f"{ours}.weight"]
        out[f"{theirs}/{'beta' if norm else 'bias'}"] = state[f"{ours}.bias"]
    return {f"encoder/{name}": value for name, value in out.items()}


def write(path: Path, values: dict[str, np.ndarray]) -> Path:
    """Write CTranslate2's layout, with one alias."""
    codes = {np.dtype(np.float16): 4, np.dtype(np.int16): 2}
    text = lambda name: struct.pack("<H", len(name) + 1) + name.encode() + b"\0"  # noqa: E731
    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(values))
    for name, value in values.items():
        data += text(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", codes[value.dtype], value.nbytes) + value.tobytes()
    path.write_bytes(data + struct.pack("<I", 1) + text("decoder/x") + text("encoder/conv1/bias"))
    return path


def test_a_converted_encoder_equals_its_network(network: Network, tmp_path: Path) -> None:
    convert_whisper(write(tmp_path / "model.bin", variables(network)), tmp_path / "whisper")
    features = _load_whisper(str(tmp_path / "whisper"))
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = features.encoder(mel), network.half().float()(mel)
    torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state, atol=1e-5, rtol=1e-5)
    modes = {path.stat().st_mode for path in (tmp_path / "whisper").iterdir()}
    assert len(modes) == 1, "other users of the cache may read all of its files"


def test_a_damaged_file_is_one_line_wherever_it_is_damaged(network: Network, tmp_path: Path) -> None:
    values = variables(network)
    path = write(tmp_path / "model.bin", values)
    whole = path.read_bytes()
    assert read_model_bin(path)["decoder/x"].shape == (8,)
    rng = np.random.default_rng(0)
    ends = [0, 3, 10, 25, *rng.integers(30, len(whole), 20), len(whole) - 1]
    damaged = [whole[:end] for end in ends] + [b"\7" + whole[1:], whole + b"x"]
    # The length of the first name, the rank, and the size of the first variable.
    damaged += [whole[:n] + b"\xff" + whole[n + 1 :] for n in (5, 26, 46, 47)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a readable CTranslate2 model") as caught:
            read_model_bin(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "shape", "bias of keys"])
def test_another_model_is_refused_in_one_line(network: Network, tmp_path: Path, change: str) -> None:
    values = variables(network)
    if change == "missing":
        del values["encoder/conv1/weight"]
    elif change == "shape":
        values["encoder/layer_1/ffn/linear_1/bias"] = np.zeros(9, np.float16)
    else:
        values["encoder/layer_0/self_attention/linear_0/bias"] = np.ones(24, np.float16)
    with pytest.raises(UserError, match="holds no Whisper encoder") as caught:
        convert_whisper(write(tmp_path / "model.bin", values), tmp_path / "whisper")
    assert "\n" not in str(caught.value) and not (tmp_path / "whisper").exists()
