"""Small random networks under the names of their releases, for tests of the files that others publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xdub.files.tensors import write_tensors
from xdub.geometry import CodecGeometry
from xdub.model.wan.config import WanConfig
from xdub.model.wan.config_files import HEAD_DIM
from xdub.model.wan.network import WanDiT

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

WAN_2_2: Mapping[str, Any] = dict(
    in_channels=12, out_channels=12, patch_size=2, is_residual=True, z_dim=48, scale_factor_spatial=16,
    latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
)  # fmt: skip
"""Arguments of diffusers' AutoencoderKLWan for Wan 2.2, apart from its widths."""
RESNETS = 1
"""Residual blocks of a stage of a small autoencoder."""


def small_vae(newer: bool, seed: int = 0) -> AutoencoderKLWan:
    """Return diffusers' autoencoder of Wan 2.2, or 2.1, with few channels."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(seed)
    vae = AutoencoderKLWan(
        base_dim=8, num_res_blocks=RESNETS, **({**WAN_2_2, "decoder_base_dim": 12} if newer else {})
    )
    vae.eval().requires_grad_(False)
    # Pictures are faint, because pair filters reject noise.
    vae.decoder.conv_out.weight.mul_(0.05)
    return vae


def original_vae_name(name: str, newer: bool, resnets: int) -> str:
    """Return the name in Wan's release of a tensor of diffusers' autoencoder."""
    for new, old in (
        (r"^quant_conv\.", "conv1."),
        (r"^post_quant_conv\.", "conv2."),
        (r"\.norm1\.", ".residual.0."),
        (r"(?<=\d)\.conv1\.", ".residual.2."),
        (r"\.norm2\.", ".residual.3."),
        (r"(?<=\d)\.conv2\.", ".residual.6."),
        (r"\.conv_shortcut\.", ".shortcut."),
        (r"\.conv_in\.", ".conv1."),
        (r"\.norm_out\.", ".head.0."),
        (r"\.conv_out\.", ".head.2."),
        (r"mid_block\.attentions\.0", "middle.1"),
        (r"mid_block\.resnets\.0", "middle.0"),
        (r"mid_block\.resnets\.1", "middle.2"),
    ):
        name = re.sub(new, old, name)
    if newer:
        name = re.sub(r"(down|up)_blocks\.(\d+)\.resnets\.", r"\1samples.\2.\1samples.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsampler\.", rf"downsamples.\1.downsamples.{resnets}.", name)
        return re.sub(r"up_blocks\.(\d+)\.upsampler\.", rf"upsamples.\1.upsamples.{resnets + 1}.", name)
    stage = resnets + 2
    name = re.sub(r"down_blocks\.", "downsamples.", name)
    name = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"upsamples.{stage * int(m[1]) + int(m[2])}", name
    )
    return re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"upsamples.{stage * int(m[1]) + resnets + 1}", name
    )


def write_vae(path: Path, *, newer: bool) -> AutoencoderKLWan:
    """Write a small autoencoder in bf16 with the names of its release; return it."""
    vae = small_vae(newer)
    state = {
        original_vae_name(name, newer, RESNETS): value.bfloat16() for name, value in vae.state_dict().items()
    }
    if path.suffix == ".safetensors":
        write_tensors(state, path)
    else:
        torch.save(state, path)
    return vae


def write_editor(path: Path, *, audio_dim: int, text_dim: int = 16, seed: int = 0) -> WanDiT:
    """Write a published editor with two narrow blocks in bf16 under its original names; return it in fp32."""
    config = WanConfig(
        kind="wan",
        hidden_size=HEAD_DIM,
        num_heads=1,
        num_layers=2,
        ffn_dim=2 * HEAD_DIM,
        text_dim=text_dim,
        order="reference_first",
        geometry=CodecGeometry(channels=48, time=4, space=16),
        speech="published",
        speech_width=64,
        audio_dim=audio_dim,
        round_timesteps=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WanDiT(config)
        for name, parameter in model.named_parameters():
            if ".audio_attn.o." in name:
                torch.nn.init.normal_(parameter, std=0.1)
    state = {name: value.bfloat16() for name, value in model.state_dict().items()}
    write_tensors(state, path)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def write_null_prompt(path: Path, text_dim: int = 16) -> None:
    """Write a null prompt as TBDub does: one row and 511 zero rows that torch saved."""
    rows = torch.zeros(1, 512, text_dim)
    rows[0, 0] = torch.randn(text_dim, generator=torch.Generator().manual_seed(0))
    torch.save(rows, path)
