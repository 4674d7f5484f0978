"""Costs of the codecs agree with counts of the networks themselves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xdub.config import load_recipe
from xdub.plan.codec_cost import (
    WAN,
    codec_bytes,
    decode_backward_flops,
    decode_bytes,
    decode_flops,
    encode_flops,
)
from xdub.plan.rehearsal import LiveBytes

WAN_2_2 = dict(
    base_dim=160, decoder_base_dim=256, z_dim=48, in_channels=12, out_channels=12, patch_size=2, is_residual=True,
    scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
)  # fmt: skip
"""Arguments of diffusers' AutoencoderKLWan for the VAE of Wan 2.2; the defaults are Wan 2.1."""


@pytest.fixture(scope="module", params=["wan", "wan2.2"])
def codec(request) -> tuple[str, torch.nn.Module]:
    """Return a kind of codec and its network at full width, without weights."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = AutoencoderKLWan(**(WAN_2_2 if request.param == "wan2.2" else {}))
    return request.param, vae.eval().requires_grad_(False)


@pytest.mark.parametrize(("size", "latents"), [(128, 3), (512, 1)])
def test_encoding_and_decoding_cost_what_torch_counts(codec, size, latents):
    kind, wan = codec
    channels = 48 if kind == "wan2.2" else 16
    recipe = load_recipe(
        "xdub-1b", [f"video.size={size}", f"codec.kind={kind}", f"codec.channels={channels}"]
    )
    frames, side = 4 * latents - 3, size // recipe.codec.geometry.space
    assert sum(p.numel() for p in wan.parameters()) == WAN[kind].parameters
    assert codec_bytes(recipe) == 4 * WAN[kind].parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        wan.encode(torch.empty(1, 3, frames, size, size, device="meta"))
    assert encode_flops(recipe, frames) == pytest.approx(counter.get_total_flops(), rel=0.01)
    z = torch.empty(1, channels, latents, side, side, device="meta", requires_grad=True)
    with LiveBytes() as live, FlopCounterMode(display=False) as counter:
        video = wan.decode(z).sample
        forward = counter.get_total_flops()
        video.backward(torch.empty_like(video))
    assert decode_flops(recipe, latents) == pytest.approx(forward, rel=0.01)
    assert decode_backward_flops(recipe, latents) == pytest.approx(
        counter.get_total_flops() - forward, rel=0.01
    )
    assert decode_bytes(recipe, latents) == pytest.approx(live.peak, rel=0.15)


def test_the_linear_codec_costs_one_product():
    from xdub.model.codec import load_codec

    recipe = load_recipe("tiny")
    codec = load_codec(recipe.codec)
    with FlopCounterMode(display=False) as counter:
        codec.encode(torch.zeros(1, 3, 25, 64, 64))
    assert encode_flops(recipe, 25) == pytest.approx(counter.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as counter:
        codec.decode(torch.zeros(1, 48, 4, 8, 8))
    assert decode_flops(recipe, 4) == pytest.approx(counter.get_total_flops(), rel=0.01)
