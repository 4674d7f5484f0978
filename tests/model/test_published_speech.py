"""Features of the published editors' audio encoders, against slow references written from their definition."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from xdub.model.speech.encoders import BlockWhisper, JoinedEncoder
from xdub.model.speech.log_mel import LogMel
from xdub.model.speech.wave_encoders import Hubert, Wav2Vec2, with_silence
from xdub.perception.openai_whisper import openai_names

WIDTH, HEADS = 16, 2
Network = TypeVar("Network", bound=torch.nn.Module)


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Return noise of changing loudness, with a quiet beginning, so that the range of the spectrogram matters."""
    time = np.arange(samples) / 16_000
    level = 10 ** (-0.5 + 0.7 * np.sin(3 * time)) * np.where(time < 0.4, 1e-6, 1.0)
    return (level * np.random.default_rng(seed).normal(0, 0.3, samples)).astype(np.float32)


def whisper(rows: int = 1500) -> WhisperEncoder:
    """Return a random Whisper whose inputs have ``rows`` rows."""
    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=2,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        max_source_positions=rows,
    )
    return perturbed(WhisperEncoder(config))


def perturbed(network: Network) -> Network:
    """Draw every weight, because fresh norms and biases hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def wave_arguments(**fields) -> dict:
    sizes = dict(hidden_size=8, num_attention_heads=2, intermediate_size=16, conv_dim=(6,) * 7)
    return sizes | dict(num_conv_pos_embedding_groups=2) | fields


def wav2vec2() -> Wav2Vec2Model:
    return perturbed(Wav2Vec2Model(Wav2Vec2Config(**wave_arguments(num_hidden_layers=2))))


def hubert(blocks: int = 14) -> HubertModel:
    large = dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    return perturbed(HubertModel(HubertConfig(**wave_arguments(num_hidden_layers=blocks, **large))))


def slaney(hertz: float) -> float:
    """Return a frequency on Slaney's mel scale: linear below 1 kHz, logarithmic above it."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def slow_log_mel(wav: np.ndarray, bands: int = 80) -> np.ndarray:
    """Return OpenAI's log-mel spectrogram [bands, N / 160], one frame and one band at a time."""
    padded = np.pad(wav.astype(np.float64), 200, mode="reflect")
    bins, hann = np.arange(201) * 40.0, 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    mels = np.linspace(0, slaney(8000), bands + 2)
    edges = [m * 200 / 3 if m < 15 else 1000 * np.exp((m - 15) * np.log(6.4) / 27) for m in mels]
    frames = []
    for n in range(len(wav) // 160):
        power = np.abs(np.fft.rfft(padded[160 * n : 160 * n + 400] * hann)) ** 2
        values = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            triangle = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
            values.append(2 / (high - low) * np.clip(triangle, 0, None) @ power)
        frames.append(np.log10(np.maximum(values, 1e-10)))
    spectrum = np.stack(frames, 1)
    return (np.maximum(spectrum, spectrum.max() - 8) + 4) / 4


def slow_block_output(weights: Mapping[str, Tensor], mel: Tensor) -> Tensor:
    """Return the output [rows, d] of OpenAI's last encoder block of a chunk [bands, 2 rows]."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = mel[None]
    for number, stride in ((1, 1), (2, 2)):
        name = f"encoder.conv{number}"
        x = F.gelu(F.conv1d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding=1))
    x = x[0].T + weights["encoder.positional_embedding"]
    for block in (f"encoder.blocks.{n}" for n in range(2)):
        y = norm(f"{block}.attn_ln", x)
        heads = []
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            q, k, v = (linear(f"{block}.attn.{name}", y)[:, part] for name in ("query", "key", "value"))
            heads.append(torch.softmax(q @ k.T / (WIDTH // HEADS) ** 0.5, -1) @ v)
        x = x + linear(f"{block}.attn.out", torch.cat(heads, 1))
        x = x + linear(f"{block}.mlp.2", F.gelu(linear(f"{block}.mlp.0", norm(f"{block}.mlp_ln", x))))
    return x


@pytest.mark.parametrize("samples", [400, 16_000, 48_077])
def test_the_spectrogram_is_openais_in_parts_of_any_size(samples: int) -> None:
    wav = sound(samples)
    mel = LogMel(wav, 80)
    expected = torch.from_numpy(slow_log_mel(wav)).float()
    assert mel.count == samples // 160
    torch.testing.assert_close(mel.read(0, mel.count), expected, atol=2e-4, rtol=1e-4)
    for cut in {1, mel.count // 2, mel.count - 1} & set(range(1, mel.count)):
        parts = torch.cat([mel.read(0, cut), mel.read(cut, mel.count)], 1)
        torch.testing.assert_close(parts, mel.read(0, mel.count), atol=1e-6, rtol=1e-6)
    if samples == 48_077:
        # A quiet start is raised to the floor of the whole recording, which no chunk of its own would know.
        assert float(mel.read(0, 10).min()) > float(LogMel(wav[:6000], 80).read(0, 10).min()) + 0.5


@pytest.mark.parametrize("samples", [16_000 * 5, 16_000 * 4 + 7 * 160 + 9, 320 * 100 + 160])
def test_whisper_rows_equal_a_loop_over_chunks(samples: int) -> None:
    """Inputs have 100 rows, so that a recording of five seconds has three chunks."""
    network, wav = whisper(rows=100), sound(samples)
    weights = openai_names(network.state_dict())
    mel = torch.from_numpy(slow_log_mel(wav)).float()
    expected = []
    for start in range(0, mel.shape[1], 200):
        chunk = torch.zeros(80, 200)
        part = mel[:, start : start + 200]
        chunk[:, : part.shape[1]] = part
        expected.append(slow_block_output(weights, chunk)[: part.shape[1] // 2])
    rows = torch.cat(expected)
    if samples == 320 * 100 + 160:
        # Half a row is left over for which Whisper has no row: the last row is repeated.
        assert len(rows) == 100
    rows = torch.cat([rows, rows[-1:]])[: round(samples / 320)]
    encoder = BlockWhisper(network)
    assert encoder.dim == WIDTH
    torch.testing.assert_close(encoder.encode(wav), rows, atol=2e-4, rtol=1e-3)
    source = encoder.open(wav)
    torch.testing.assert_close(source.read(95, len(rows)), encoder.encode(wav)[95:])


def test_wav2vec2_rows_are_the_last_state_of_the_whole_recording_and_its_last_row_again() -> None:
    network, wav = wav2vec2(), sound(16_000 * 2)
    values = Wav2Vec2FeatureExtractor()(wav, sampling_rate=16_000, return_tensors="pt").input_values
    states = network(values).last_hidden_state[0]
    assert len(states) == 99
    rows = Wav2Vec2(network).encode(wav)
    torch.testing.assert_close(rows, torch.cat([states, states[-1:]]), atol=1e-5, rtol=1e-5)


def test_a_joined_row_is_whispers_then_wav2vec2s() -> None:
    wav, parts = sound(16_000), [BlockWhisper(whisper(rows=100)), Wav2Vec2(wav2vec2())]
    encoder = JoinedEncoder(parts)
    assert encoder.dim == WIDTH + 8
    assert torch.equal(encoder.encode(wav), torch.cat([part.encode(wav) for part in parts], 1))


def test_hubert_rows_are_states_9_to_12_with_the_channel_slowest() -> None:
    network, wav = hubert(), sound(16_000)
    values = torch.from_numpy((wav - wav.mean()) / np.sqrt(wav.var() + 1e-7))[None]
    x, _ = network.feature_projection(network.feature_extractor(values).transpose(1, 2)), None
    states = [x + network.encoder.pos_conv_embed(x)]
    for block in network.encoder.layers:
        states.append(block(states[-1]))
    expected = torch.empty(49, 32)
    for row in range(49):
        for channel in range(8):
            for layer in range(4):
                expected[row, 4 * channel + layer] = states[9 + layer][0, row, channel]
    encoder = Hubert(network)
    assert encoder.dim == 32
    torch.testing.assert_close(encoder.encode(wav)[:49], expected, atol=1e-5, rtol=1e-5)
    assert len(encoder.encode(wav)) == 50


def test_silence_follows_a_recording_that_hubert_hears_to_its_end() -> None:
    wav = sound(16_000)
    longer = with_silence(wav)
    assert len(longer) == 16_000 + 77 * 640 and np.array_equal(longer[:16_000], wav)
    ramp = [wav[-1] * (1 - n / 160) for n in range(1, 161)]
    np.testing.assert_allclose(longer[16_000:16_160], ramp, atol=1e-7)
    assert not longer[16_160:].any()
    encoder = Hubert(hubert(12))
    ended, cut = encoder.open(wav, ended=True), encoder.open(wav, ended=False)
    assert (ended.count, cut.count) == (50 + 154, 50)
    torch.testing.assert_close(ended.read(0, 204), encoder.encode(longer))


def long_errors(network: torch.nn.Module, *, margin: int) -> tuple[Tensor, Tensor]:
    """Return the differences [T] of rows of inputs of 300 rows to those of one pass, and the rows [T, d]."""
    kind = Hubert if isinstance(network, HubertModel) else Wav2Vec2
    # The pause at the start makes the first input quieter than the others.
    wav = sound(16_000 * 16)
    one = kind(deepcopy(network), one_pass=1000).encode(wav)
    parts = kind(deepcopy(network), one_pass=300, margin=margin)
    several, source = parts.encode(wav), parts.open(wav)
    assert one.shape == several.shape == (800, parts.dim)
    torch.testing.assert_close(source.read(230, 270), several[230:270])
    return (one - several).square().mean(1).sqrt() / one.std(), one


@pytest.mark.parametrize("build", [wav2vec2, lambda: hubert(12)], ids=["wav2vec2", "hubert"])
def test_a_long_recording_differs_from_one_pass_only_by_distant_attention(build) -> None:
    """Without attention, a margin of 75 rows makes the inputs exact: the convolution of positions reaches 64 rows."""
    network = build()
    for block in network.encoder.layers:
        block.attention.out_proj.weight.zero_()
    error, _ = long_errors(network, margin=75)
    assert float(error.max()) < 1e-4
    network = build()
    error, rows = long_errors(network, margin=75)
    assert 0 < float(error.mean()) < 0.05 and float(error.max()) < 0.1
    # The error at the joins, rows 225, 375, ..., is not larger than elsewhere.
    joins = torch.cat([error[n - 5 : n + 5] for n in (225, 375, 525)])
    assert float(joins.mean()) < 2 * float(error.mean()) and len(rows) == 800


@pytest.mark.parametrize("samples", [1, 150, 399, 500])
def test_the_shortest_sounds_have_one_row_or_more(samples: int) -> None:
    encoder = JoinedEncoder([BlockWhisper(whisper(rows=100)), Wav2Vec2(wav2vec2())])
    rows = encoder.encode(sound(samples))
    assert rows.shape == (max(1, round(samples / 320)), WIDTH + 8) and bool(rows.isfinite().all())
