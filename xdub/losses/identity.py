"""Eq. 13: keep the reference's identity and texture."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def cosine_to_reference(
    embed: Callable[[Tensor], Tensor], video: Tensor, reference: Tensor, stride: int = 4
) -> Tensor:
    """1 - cosine between embeddings of every ``stride``-th frame of two videos [B, 3, F, H, W] -> scalar.

    Gradients flow into ``video`` only.
    """
    frames = rearrange(video[:, :, ::stride], "b c f h w -> (b f) c h w")
    wanted = rearrange(reference[:, :, ::stride], "b c f h w -> (b f) c h w")
    return 1 - F.cosine_similarity(embed(frames), embed(wanted.detach()).detach()).mean()
