"""Files of Wan's autoencoders with the original names, as Wan (.pth), X-Dub and TBDub (.safetensors) release them.

diffusers converts the names of Wan 2.1 only, so both tables are here. The file has no configuration: the widths follow
from the shapes, and the statistics of the latents are published constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xdub.errors import UserError
from xdub.perception.network_files import load_weights, read_state_dict
from xdub.perception.open_models.wan_names import VAE_STAGE, is_vae_2_2

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

SUFFIXES = (".safetensors", ".pth")
"""Suffixes of such files; a codec in diffusers' layout is a folder."""
MEAN_2_2 = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
"""Mean of each latent channel of Wan 2.2."""
STD_2_2 = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
"""Standard deviation of each latent channel of Wan 2.2."""
COMMON = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)
"""(original name, diffusers' name) of the parts that both autoencoders have, as a pattern and its replacement."""
FLAT = re.compile(r"^(en|de)coder\.(?:down|up)samples\.(\d+)\.(.+)$")
"""Name within the stages of Wan 2.1: side, layer, rest."""


def read_wan_vae(path: str | Path) -> AutoencoderKLWan:
    """Load an autoencoder of Wan 2.1 or 2.2 from a file with the original names, in fp32.

    Raise UserError if the file is missing, damaged or of another network.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    title = "an autoencoder of Wan 2.1 or 2.2"
    if not Path(path).is_file():
        raise UserError(f"codec.path={path}: there is no such file")
    state = read_state_dict(path, title)
    try:
        arguments, resnets = vae_arguments({name: tuple(value.shape) for name, value in state.items()})
    except KeyError as error:
        raise UserError(f"{path}: not {title}: it has no tensor {error}") from error
    with torch.device("meta"):
        vae = AutoencoderKLWan(**arguments)
    names = {name: diffusers_vae_name(name, resnets) for name in state}
    vae.to_empty(device="cpu")
    load_weights(vae, {new: state[name].float() for name, new in names.items()}, path, title)
    return vae


def vae_arguments(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], int]:
    """Return the arguments of diffusers' class, and the number of residual blocks of a stage, for original names.

    Raise KeyError for a tensor that every such autoencoder has.
    """
    newer = is_vae_2_2(shapes)
    resnets = _resnets(shapes)
    arguments: dict[str, Any] = dict(
        base_dim=shapes["encoder.conv1.weight"][0],
        decoder_base_dim=shapes["decoder.head.2.weight"][1],
        z_dim=shapes["conv2.weight"][0],
        num_res_blocks=resnets,
    )
    if newer:
        arguments |= dict(
            in_channels=shapes["encoder.conv1.weight"][1],
            out_channels=shapes["decoder.head.2.weight"][0],
            patch_size=2,
            is_residual=True,
            scale_factor_spatial=16,
            latents_mean=list(MEAN_2_2),
            latents_std=list(STD_2_2),
        )
    return arguments, resnets


def diffusers_vae_name(name: str, resnets: int) -> str:
    """Return diffusers' name of a tensor; ``resnets`` is the number of residual blocks of an encoder's stage."""
    if match := VAE_STAGE.match(name):
        side, stage, layer, rest = match.groups()
        way = "down" if side == "en" else "up"
        part = f"resnets.{layer}" if _in_resnet(rest) else f"{way}sampler"
        name = f"{side}coder.{way}_blocks.{stage}.{part}.{rest}"
    elif match := FLAT.match(name):
        side, layer, rest = match.groups()
        if side == "en":
            name = f"encoder.down_blocks.{layer}.{rest}"
        else:
            # A stage of the decoder has one residual block more than the encoder's, and then the resampling.
            stage, layer = divmod(int(layer), resnets + 2)
            part = f"resnets.{layer}" if _in_resnet(rest) else "upsamplers.0"
            name = f"decoder.up_blocks.{stage}.{part}.{rest}"
    for pattern, replacement in COMMON:
        name = re.sub(pattern, replacement, name)
    return name


def _in_resnet(rest: str) -> bool:
    return rest.startswith(("residual.", "shortcut."))


def _resnets(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of residual blocks of an encoder's stage."""
    if is_vae_2_2(shapes):
        layers = [m for name in shapes if (m := VAE_STAGE.match(name)) and m[1] == "de" and m[2] == "0"]
        return len({m[3] for m in layers if _in_resnet(m[4])}) - 1
    upsampling = [
        int(m[2]) for name in shapes if (m := FLAT.match(name)) and m[1] == "de" and not _in_resnet(m[3])
    ]
    if not upsampling:
        raise KeyError("decoder.upsamples.*.resample")
    return min(upsampling) - 1
