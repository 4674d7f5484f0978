"""Layouts of a Wan's folder, and the tensors that a `WanDiT` has beside a plain Wan."""

from __future__ import annotations

from typing import Literal

Layout = Literal["original", "diffusers", "ours"]
"""``original``: Wan's and X-Dub's names. ``diffusers``: a `WanTransformer3DModel`. ``ours``: the original names with a
config of this project."""
MASK = "mask_embedding"
"""Name of the layer that embeds z_mask."""


def beyond_wan(name: str) -> bool:
    """Return whether a tensor of a `WanDiT` is no part of a plain Wan: speech, or the embedding of z_mask."""
    parts = name.split(".")
    return parts[0] in ("audio_embedding", "audio_adapter", MASK) or bool(
        {"audio_attn", "norm4"} & set(parts)
    )
