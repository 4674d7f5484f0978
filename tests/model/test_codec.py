"""Codecs: geometry, causality, exactness; the production backends on small random configurations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xdub.errors import UserError
from xdub.fit.codec import fit_linear_codec
from xdub.model.codec import LinearCodec, WanCodec


@pytest.fixture(scope="module")
def codec() -> LinearCodec:
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(4, 13, 6, 6, 3)).repeat(8, 2).repeat(8, 3).cumsum(1)
    grain = rng.normal(size=smooth.shape)
    frames = (127 + 30 * smooth + 10 * grain).clip(0, 255).astype(np.uint8)
    return fit_linear_codec([(clip, np.zeros(clip.shape[:3], bool)) for clip in frames], channels=24)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (13, 4), (25, 7), (77, 20)])
def test_after_the_first_frame_every_four_frames_are_one_latent(frames, latents, codec):
    assert codec.geometry.latent_frames(frames) == latents
    assert codec.geometry.frames(latents) == frames
    video = torch.rand(2, 3, frames, 16, 24) * 2 - 1
    z = codec.encode(video)
    assert z.shape == (2, 24, latents, 2, 3)
    assert codec.decode(z).shape == video.shape


def test_a_latent_does_not_depend_on_later_frames(codec):
    video = torch.rand(1, 3, 13, 16, 16) * 2 - 1
    later = video.clone()
    later[:, :, 5:] = 0
    assert torch.equal(codec.encode(video)[:, :, :2], codec.encode(later)[:, :, :2])


def test_decoding_then_encoding_is_the_identity_on_latents(codec):
    z = torch.randn(1, 24, 4, 2, 2) * codec.channel_std[None, :, None, None, None]
    torch.testing.assert_close(codec.encode(codec.decode(z)), z, atol=1e-4, rtol=1e-3)


def test_a_saved_codec_loads_unchanged(codec, tmp_path):
    codec.save(tmp_path / "codec.safetensors")
    video = torch.rand(1, 3, 5, 8, 8)
    loaded = LinearCodec.load(tmp_path / "codec.safetensors")
    torch.testing.assert_close(loaded.encode(video), codec.encode(video), atol=1e-5, rtol=1e-5)


def test_an_error_names_frames_and_sizes_that_do_not_fit(codec):
    with pytest.raises(UserError, match="24 frames"):
        codec.encode(torch.zeros(1, 3, 24, 8, 8))
    with pytest.raises(UserError, match="12x8"):
        codec.encode(torch.zeros(1, 3, 1, 8, 12))


def test_the_wan_backend_has_the_same_geometry_and_inverts_its_normalisation(tmp_path):
    from diffusers import AutoencoderKLWan

    from xdub.config import CodecConfig
    from xdub.model.codec import load_codec

    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.5, 2.0, 0.5, 1.0],
    )
    vae.save_pretrained(tmp_path)
    codec = load_codec(CodecConfig(kind="wan", channels=4, path=str(tmp_path)))
    assert isinstance(codec, WanCodec)
    video = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    z = codec.encode(video)
    assert z.shape == (1, 4, 3, 2, 2)
    raw = vae.eval().encode(video).latent_dist.mode()
    torch.testing.assert_close(z * codec.latents_std + codec.latents_mean, raw)
    z.requires_grad_()
    codec.decode(z).mean().backward()
    assert z.grad.abs().sum() > 0
