"""Layers of a Wan outside its blocks: embeddings of timestep and prompt, and the output.

B batch, f latent frames, N tokens a frame, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.model.wan.block import modulated


class Mlp(nn.Sequential):
    """Two linear layers, named 0 and 2, with an activation between them."""

    def __init__(self, width: int, size: int, activation: nn.Module) -> None:
        super().__init__(nn.Linear(width, size), activation, nn.Linear(size, size))

    def exact(self, x: Tensor) -> Tensor:
        """Return the output [..., size] of x [..., width], computed in fp32 whatever the dtype of the weights."""
        first, activation, second = self
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        hidden = activation(F.linear(x.float(), first.weight.float(), first.bias.float()))
        return F.linear(hidden, second.weight.float(), second.bias.float())


class Head(nn.Module):
    """Output layer: norm without weights, modulated by a table and the embedded timestep, then a linear layer."""

    def __init__(self, size: int, out: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(size, out)
        self.modulation = nn.Parameter(torch.randn(1, 2, size) / size**0.5)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return patches [B, f, N, out] of x [B, f, N, D] under ``embedded`` [B, f, n, D]."""
        shift, scale = (self.modulation.float() + embedded.float().unsqueeze(-2)).unbind(-2)
        return self.head(modulated(x, shift, scale, self.eps))
