"""Slices of Wan's causal decoder, with gradients, for the structures of Wan 2.1 and of Wan 2.2."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample

from xdub.miniature.networks import WAN_2_2
from xdub.model.codec import WanCodec
from xdub.model.wan_decoder import checkpoint_blocks, decode_latents
from xdub.plan.rehearsal import LiveBytes


def miniature(kind: str, base: int = 8, blocks: int = 1) -> AutoencoderKLWan:
    torch.manual_seed(0)
    widths = {"base_dim": base, "num_res_blocks": blocks, "dim_mult": [1, 2, 2, 2]}
    extra = (
        {**WAN_2_2, "decoder_base_dim": base, "latents_mean": [0.1] * 48, "latents_std": [1.5] * 48}
        if kind == "2.2"
        else {}
    )
    vae = AutoencoderKLWan(**widths, **extra).eval().requires_grad_(False)
    # Pictures stay inside [-1, 1], where diffusers clamps.
    vae.decoder.conv_out.weight.mul_(0.1)
    checkpoint_blocks(vae)
    return vae


@pytest.fixture(scope="module", params=["2.1", "2.2"])
def vae(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    return miniature(request.param)


def latents(vae: AutoencoderKLWan, number: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(1, vae.config["z_dim"], number, 2, 2, generator=generator)


def test_every_slice_equals_the_same_frames_of_diffusers_whole_decode(vae):
    codec, z = WanCodec(vae), latents(vae, 7)
    whole = codec.vae.decode(z * codec.latents_std + codec.latents_mean).sample
    torch.testing.assert_close(codec.decode(z).clamp(-1, 1), whole, atol=1e-6, rtol=1e-5)
    for start in range(4):
        part = codec.decode_slice(z, start, 4)
        first = 0 if start == 0 else 4 * start - 3
        assert part.shape[2] == (13 if start == 0 else 16)
        expected = whole[:, :, first : first + part.shape[2]]
        torch.testing.assert_close(part.clamp(-1, 1), expected, atol=1e-6, rtol=1e-5)


def test_latents_that_are_decoded_in_parts_give_the_frames_of_the_whole_decode(vae):
    codec, z = WanCodec(vae), latents(vae, 6)
    state, parts = None, []
    for part in z.split((3, 1, 2), dim=2):
        frames, state = codec.decode_next(part, state)
        parts.append(frames)
    assert [part.shape[2] for part in parts] == [9, 4, 8]
    torch.testing.assert_close(torch.cat(parts, 2), codec.decode(z), atol=1e-6, rtol=1e-5)


def test_gradients_with_checkpointing_equal_those_of_diffusers_decode_inside_the_range(vae):
    plain, checked = (latents(vae, 3).requires_grad_() for _ in range(2))
    untouched = AutoencoderKLWan.from_config(vae.config)
    untouched.load_state_dict(vae.state_dict())
    whole = untouched.decode(plain).sample
    assert whole.abs().max() < 1
    weight = torch.randn(whole.shape, generator=torch.Generator().manual_seed(2))
    (whole * weight).sum().backward()
    (decode_latents(vae, checked, 0, 3) * weight).sum().backward()
    torch.testing.assert_close(checked.grad, plain.grad, atol=1e-6, rtol=1e-5)


def test_a_slice_sends_gradients_to_its_latents_and_to_no_others(vae):
    z = latents(vae, 7).requires_grad_()
    decode_latents(vae, z, 2, 4).square().sum().backward()
    reached = z.grad.abs().sum((0, 1, 3, 4)) > 0
    assert reached.tolist() == [False, False, True, True, True, True, False]


@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_a_saturated_picture_has_a_gradient(kind):
    codec = WanCodec(miniature(kind))
    codec.vae.decoder.conv_out.bias.fill_(3.0)
    z = latents(codec.vae, 2).requires_grad_()
    video = codec.decode(z)
    assert video.min() > 1
    assert (codec.vae.decode(z * codec.latents_std + codec.latents_mean).sample == 1).all()
    video.mean().backward()
    assert z.grad.abs().sum() > 0


def test_the_backward_pass_keeps_states_of_all_latents_and_activations_of_one_block(vae):
    peaks = []
    for number in (2, 4):
        z = latents(vae, number).requires_grad_()
        with LiveBytes() as live:
            video = decode_latents(vae, z, 0, number)
            video.backward(torch.empty_like(video))
        peaks.append(live.peak)
    untouched = AutoencoderKLWan.from_config(vae.config).eval().requires_grad_(False)
    with LiveBytes() as live:
        video = untouched.decode(latents(vae, 2).requires_grad_()).sample
        plain = live.now
    assert peaks[0] < 0.75 * plain
    # A further latent adds its state and its frames, not its activations.
    assert (peaks[1] - peaks[0]) / 2 < 0.25 * plain


def receptive_field(vae: AutoencoderKLWan) -> float:
    """Return how many latents before its own a frame depends on, from the decoder's convolutions in time."""
    reach, rate = 0.0, 1
    for module in vae.decoder.modules():
        if isinstance(module, WanResample) and module.mode == "upsample3d":
            reach, rate = reach + (module.time_conv.kernel_size[0] - 1) / rate, 2 * rate
        elif isinstance(module, WanCausalConv3d) and module.kernel_size == (3, 3, 3):
            reach += 2 / rate
    return reach


@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_at_the_true_depth_a_frame_depends_on_more_latents_than_a_window_has(kind):
    """A bounded number of warm-up latents would be wrong: the paper's window has 20 latents."""
    deep = miniature(kind, base=4, blocks=2)
    assert receptive_field(deep) == 37.5
    z = latents(deep, 20)[..., :1, :1]
    start = 16
    exact = decode_latents(deep, z, start, 4)
    errors = []
    for warm_up in (4, 8, 15):
        part = decode_latents(deep, z[:, :, start - warm_up :], warm_up, 4)
        errors.append(((part - exact).square().mean() / exact.var()).sqrt().item())
    assert errors[0] > errors[1] > errors[2] > 1e-4
