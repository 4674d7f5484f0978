"""Costs of the codecs agree with counts of the networks themselves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xdub.config import Recipe, load_recipe
from xdub.miniature.networks import WAN_2_2
from xdub.miniature.sizes import WAN_2_2_WIDTHS
from xdub.model.wan_decoder import checkpoint_blocks, decode_latents
from xdub.plan.codec_cost import (
    WAN,
    codec_bytes,
    decode_backward_flops,
    decode_bytes,
    decode_flops,
    decoding_bytes,
    encode_flops,
    encoding_bytes,
    video_bytes,
)
from xdub.plan.rehearsal import LiveBytes
from xdub.precision import dtype_of


@pytest.fixture(scope="module", params=["wan", "wan2.2"])
def codec(request) -> tuple[str, torch.nn.Module]:
    """Return a kind of codec and its network at full width, without weights."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = AutoencoderKLWan(**({**WAN_2_2, **WAN_2_2_WIDTHS} if request.param == "wan2.2" else {}))
    return request.param, vae.eval().requires_grad_(False)


def recipe_of(kind: str, size: int, precision: str = "fp32") -> Recipe:
    channels = 48 if kind == "wan2.2" else 16
    return load_recipe(
        "xdub-1b",
        [
            f"video.size={size}",
            f"codec.kind={kind}",
            f"codec.channels={channels}",
            f"train.precision={precision}",
        ],
    )


@pytest.mark.parametrize(("size", "latents"), [(128, 3), (512, 1)])
def test_encoding_and_decoding_cost_what_torch_counts(codec, size, latents):
    kind, wan = codec
    recipe = recipe_of(kind, size)
    frames, side = 4 * latents - 3, size // recipe.codec.geometry.space
    assert sum(p.numel() for p in wan.parameters()) == WAN[kind].parameters
    assert codec_bytes(recipe) == 4 * WAN[kind].parameters
    assert codec_bytes(recipe_of(kind, size, "bf16")) == 2 * WAN[kind].parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        wan.encode(torch.empty(1, 3, frames, size, size, device="meta"))
    assert encode_flops(recipe, frames) == pytest.approx(counter.get_total_flops(), rel=0.01)
    z = torch.empty(1, recipe.codec.channels, latents, side, side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        wan.decode(z)
    assert decode_flops(recipe, latents) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize(("size", "latents"), [(128, 2), (512, 1)])
def test_the_backward_pass_of_a_slice_costs_what_torch_counts(codec, size, latents):
    kind, wan = codec
    recipe = recipe_of(kind, size)
    checkpoint_blocks(wan)
    side = size // recipe.codec.geometry.space
    z = torch.empty(1, recipe.codec.channels, latents + 1, side, side, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        video = decode_latents(wan, z, 1, latents)
        forward = counter.get_total_flops()
        video.backward(torch.empty_like(video))
    assert decode_flops(recipe, latents + 1) == pytest.approx(forward, rel=0.01)
    backward = counter.get_total_flops() - forward
    assert decode_backward_flops(recipe, latents) == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize(
    ("precision", "size", "latents", "samples"),
    [("fp32", 128, 2, 1), ("bf16", 512, 3, 2), ("bf16", 256, 1, 1)],
)
def test_the_backward_pass_of_slices_needs_the_bytes_that_are_alive(codec, precision, size, latents, samples):
    kind, wan = codec
    recipe = recipe_of(kind, size, precision)
    checkpoint_blocks(wan)
    torch.nn.Module.to(wan, dtype_of(precision))
    side = size // recipe.codec.geometry.space
    # The second latent has a smaller state than later ones.
    shape = (1, recipe.codec.channels, latents + 2, side, side)
    z = [
        torch.empty(shape, device="meta", dtype=dtype_of(precision), requires_grad=True)
        for _ in range(samples)
    ]
    with LiveBytes() as live:
        video = torch.cat([decode_latents(wan, sample, 2, latents) for sample in z])
        video.backward(torch.empty_like(video))
    assert decode_bytes(recipe, latents, samples) == pytest.approx(live.peak, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_encoding_and_decoding_without_gradients_need_the_bytes_that_are_alive(codec, precision):
    kind, wan = codec
    recipe, dtype = recipe_of(kind, 256, precision), dtype_of(precision)
    torch.nn.Module.to(wan, dtype)
    side = 256 // recipe.codec.geometry.space
    with torch.no_grad(), LiveBytes() as live:
        wan.encode(torch.empty(1, 3, 13, 256, 256, device="meta", dtype=dtype))
    assert encoding_bytes(recipe, 13) == pytest.approx(live.peak, rel=0.05)
    z = torch.empty(1, recipe.codec.channels, 4, side, side, device="meta", dtype=dtype)
    with torch.no_grad(), LiveBytes() as live:
        decode_latents(wan, z, 0, 4)
    video = video_bytes(recipe, 13)
    assert decoding_bytes(recipe, 4) - video == pytest.approx(live.peak, rel=0.05)


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
