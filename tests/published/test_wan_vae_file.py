"""Autoencoders of Wan with the names of their releases, against diffusers' class."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

from xdub.config import CodecConfig, load_recipe
from xdub.errors import UserError
from xdub.files.tensors import signature
from xdub.headers.kinds import wan_codec
from xdub.model.codec import load_codec
from xdub.model.release_testing import WAN_2_2, original_vae_name, small_vae, write_vae
from xdub.model.wan_vae_file import MEAN_2_2, STD_2_2, diffusers_vae_name, vae_arguments
from xdub.perception.open_models.dubbing import VAE_2_2

SIGNATURES = {True: VAE_2_2, False: "ccc42284ea13e1ad04693284c7a09be6"}
"""Signatures of the released files of Wan 2.2 and 2.1."""
newer = pytest.mark.parametrize("newer", [True, False])


@newer
def test_names_and_shapes_at_full_size_have_the_signature_of_the_release(newer):
    widths = {"base_dim": 160, "decoder_base_dim": 256, **WAN_2_2} if newer else {}
    with torch.device("meta"):
        state = AutoencoderKLWan(**widths).state_dict()
    shapes = {original_vae_name(name, newer, 2): tuple(value.shape) for name, value in state.items()}
    assert signature(shapes) == SIGNATURES[newer]
    arguments, resnets = vae_arguments(shapes)
    assert {diffusers_vae_name(name, resnets) for name in shapes} == set(state)
    assert (arguments["base_dim"], arguments["decoder_base_dim"]) == ((160, 256) if newer else (96, 96))
    assert len(MEAN_2_2) == len(STD_2_2) == 48


@pytest.mark.parametrize(("newer", "suffix"), [(True, "safetensors"), (True, "pth"), (False, "pth")])
def test_a_file_of_a_release_is_the_codec_of_a_recipe(newer, suffix, tmp_path):
    path = tmp_path / f"vae.{suffix}"
    vae = write_vae(path, newer=newer)
    kind, channels = ("wan2.2", 48) if newer else ("wan", 16)
    codec = load_codec(CodecConfig(kind=kind, channels=channels, path=str(path)))
    if newer:
        assert codec.latents_mean.flatten().tolist() == pytest.approx(list(MEAN_2_2))
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rounded = small_vae(newer)
    rounded.load_state_dict({name: value.bfloat16().float() for name, value in vae.state_dict().items()})
    expected = rounded.encode(video).latent_dist.mode()
    torch.testing.assert_close(codec.encode(video) * codec.latents_std + codec.latents_mean, expected)
    settings = [f"codec.kind={kind}", f"codec.channels={channels}", "video.size=64"]
    assert f"{kind}: {channels} channels" in wan_codec(load_recipe("tiny", settings), path)
    other = {"wan": "wan2.2", "wan2.2": "wan"}[kind]
    with pytest.raises(UserError, match="a latent covers|channels"):
        load_codec(CodecConfig(kind=other, channels=channels, path=str(path)))


def test_a_damaged_file_is_named(tmp_path):
    path, state = tmp_path / "vae.safetensors", small_vae(True).state_dict()
    renamed = {original_vae_name(name, True, 1): value.clone() for name, value in state.items()}
    config = CodecConfig(kind="wan2.2", channels=48, path=str(path))
    del renamed["decoder.head.0.gamma"]
    save_file(renamed, path)
    with pytest.raises(UserError, match="not an autoencoder of Wan 2.1 or 2.2 .*decoder.norm_out.gamma"):
        load_codec(config)
    save_file({"conv2.weight": torch.zeros(48, 48, 1, 1, 1)}, path)
    with pytest.raises(UserError, match="it has no tensor"):
        load_codec(config)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_codec(config)
