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
from xdub.plan.speech_cost import LAYERS, speech_bytes, speech_flops, speech_parameters, whisper_layers


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
