"""Names of the tensors of Wan and of the published editors: those of the releases, and those of diffusers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""Prefixes of the original names in files for ComfyUI."""
MASK = "mask_embedding"
"""Name of the layer that embeds z_mask."""
_OUTSIDE = (
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
    ("scale_shift_table", "head.modulation"),
)
"""(diffusers' name, original name) of modules and tensors outside the blocks; others have one name."""
_INSIDE = (
    ("attn1.to_q", "self_attn.q"),
    ("attn1.to_k", "self_attn.k"),
    ("attn1.to_v", "self_attn.v"),
    ("attn1.to_out.0", "self_attn.o"),
    ("attn1.norm_q", "self_attn.norm_q"),
    ("attn1.norm_k", "self_attn.norm_k"),
    ("attn2.to_q", "cross_attn.q"),
    ("attn2.to_k", "cross_attn.k"),
    ("attn2.to_v", "cross_attn.v"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn2.norm_q", "cross_attn.norm_q"),
    ("attn2.norm_k", "cross_attn.norm_k"),
    # The norm before the cross-attention; each layout has another number for it.
    ("norm2", "norm3"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("scale_shift_table", "modulation"),
)
"""(diffusers' name, original name) within a block."""
_TO_ORIGINAL = (dict(_OUTSIDE), dict(_INSIDE))
_TO_DIFFUSERS = tuple({original: other for other, original in table} for table in (_OUTSIDE, _INSIDE))
_BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")


VAE_STAGE = re.compile(r"^(en|de)coder\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)$")
"""Name within a stage of Wan 2.2's autoencoder: side, stage, layer, rest."""


def is_vae_2_2(names: Iterable[str]) -> bool:
    """Return whether original names of an autoencoder are those of Wan 2.2, whose stages are nested."""
    return any(VAE_STAGE.match(name) for name in names)


def original_name(name: str) -> str:
    """Return the original name of a tensor or module of either layout.

    The name ``norm2`` of a block means different tensors in the two layouts; the original layout has no tensor of that
    name, so one table serves both.
    """
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return _renamed(name, *_TO_ORIGINAL)


def diffusers_name(name: str) -> str:
    """Return diffusers' name of a tensor or module with an original name."""
    return _renamed(name, *_TO_DIFFUSERS)


def _renamed(name: str, outside: Mapping[str, str], inside: Mapping[str, str]) -> str:
    block = _BLOCK.fullmatch(name)
    prefix, rest, table = (*block.groups(), inside) if block else ("", name, outside)
    for old, new in table.items():
        if rest == old or rest.startswith(f"{old}."):
            return prefix + new + rest[len(old) :]
    return name


def beyond_wan(name: str) -> bool:
    """Return whether a tensor of a `WanDiT` is no part of a plain Wan: speech, or the embedding of z_mask."""
    parts = name.split(".")
    return parts[0] in ("audio_embedding", "audio_adapter", MASK) or bool(
        {"audio_attn", "norm4"} & set(parts)
    )
