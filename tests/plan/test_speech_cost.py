"""The cost of the audio encoder agrees with counts of the network of transformers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xdub.config import load_recipe
from xdub.plan.flops import SPEECH, step_parts
from xdub.plan.memory import memory
from xdub.plan.network import count_network, count_parameters
from xdub.plan.rehearsal import Activations
from xdub.plan.speech_cost import (
    LAYERS,
    speech_bytes,
    speech_flops,
    speech_parameters,
    speech_working_bytes,
    whisper_layers,
    window_speech_flops,
)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (1280, 20)])
def test_whispers_encoder_costs_what_torch_counts(width, heads):
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=width, encoder_layers=LAYERS[width], encoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        attn_implementation="eager",
    )  # fmt: skip
    with torch.device("meta"):
        encoder = WhisperEncoder(config).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(1, 80, 3000))
    recipe = load_recipe("xdub-1b", [f"audio.dim={width}"])
    assert speech_parameters(recipe) == sum(p.numel() for p in encoder.parameters())
    assert speech_flops(recipe, 25) == pytest.approx(counter.get_total_flops(), rel=0.001)


@pytest.mark.parametrize("kind", ["whisper+wav2vec2", "hubert"])
def test_the_encoders_of_the_published_editors_cost_what_torch_counts(kind):
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    # The features of HuBERT are states before the last norm.
    large = dict(hidden_size=1024, num_attention_heads=16, intermediate_size=4096, num_hidden_layers=12)
    large |= dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    eager = dict(attn_implementation="eager")
    with torch.device("meta"):
        network = (
            HubertModel(HubertConfig(**large, **eager))
            if kind == "hubert"
            else Wav2Vec2Model(Wav2Vec2Config(**eager))
        ).eval()
        with FlopCounterMode(display=False) as counter:
            network.requires_grad_(False)(torch.empty(1, 640 * 75))
    recipe = load_recipe("xdub-1b", [f"audio.kind={kind}", f"audio.dim={2048 if kind != 'hubert' else 4096}"])
    flops, count = counter.get_total_flops(), sum(p.numel() for p in network.parameters())
    if kind == "hubert":
        count -= 2 * 1024
    else:
        whisper = load_recipe("xdub-1b", ["audio.dim=1280"])
        flops, count = flops + speech_flops(whisper, 25), count + speech_parameters(whisper) - 2 * 1280
    assert speech_parameters(recipe) == count
    assert speech_flops(recipe, 25) == pytest.approx(flops, rel=0.001)


def test_a_published_editor_encodes_a_speech_once_and_ours_encodes_every_window():
    settings = ["audio.kind=hubert", "audio.dim=4096"]
    ours = load_recipe("xdub-1b", settings)
    published = load_recipe(
        "xdub-1b",
        [
            *settings,
            "model.kind=wan",
            "lora.targets=[ffn.0]",
            "model.text_dim=4096",
            "model.speech=published",
        ],
    )
    hour, windows = 90_000, 1250
    assert window_speech_flops(ours, 77, hour, windows) == speech_flops(ours, 77)
    # A window of 127 frames is heard for 72 new ones; inputs of 60 s are heard for 50 new seconds.
    once = window_speech_flops(published, 77, hour, windows)
    assert 0.5 < once / speech_flops(ours, 77) < 0.95
    assert speech_working_bytes(published, hour) == speech_working_bytes(published, 1500) < 1.5e9


def test_a_window_is_one_chunk_and_more_than_thirty_seconds_are_two():
    recipe = load_recipe("small")
    one = speech_flops(recipe, 25)
    assert speech_flops(recipe, 700) == one
    assert speech_flops(recipe, 701) == 2 * one


def test_a_width_between_the_published_ones_has_the_layers_of_the_wider_one():
    assert [whisper_layers(width) for width in (64, 384, 400, 1280, 2000)] == [4, 4, 6, 32, 32]


def test_log_mel_features_cost_nothing():
    recipe = load_recipe("tiny")
    assert (speech_flops(recipe, 25), speech_bytes(recipe)) == (0.0, 0.0)


def test_training_counts_the_audio_encoder_in_flops_and_memory():
    recipe = load_recipe("xdub-1b", ["video.size=64"])
    parts = step_parts(recipe, "generator", count_network(recipe, "generator"))
    assert parts[SPEECH] == 256 * speech_flops(recipe, 25) > 5e14
    count, nothing = count_parameters(recipe, "generator"), Activations(kept=0, peak=0)
    assert memory(recipe, "generator", count, nothing, 32).frozen_networks > speech_bytes(recipe) > 2.5e9
