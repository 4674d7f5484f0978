"""Identity loss: keep the reference's identity and texture (Eq. 13)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def cosine_to_reference(
    embed: Callable[[Tensor], Tensor], video: Tensor, reference: Tensor, stride: int = 4
) -> Tensor:
    """Return the cosine [B, frames] between embeddings of every ``stride``-th frame of two videos [B, 3, F, H, W].

    Gradients flow into ``video`` only. The loss is 1 - its mean.
    """
    frames = rearrange(video[:, :, ::stride], "b c f h w -> (b f) c h w")
    references = rearrange(reference[:, :, ::stride], "b c f h w -> (b f) c h w")
    cosine = F.cosine_similarity(embed(frames), embed(references.detach()).detach())
    return rearrange(cosine, "(b f) -> b f", b=video.shape[0])
