"""Preconditioning: the network learns the difference to the best linear guess of v.

If channel c of z_0 had zero mean and standard deviation s, then given z_t = (1 - t) z_0 + t eps the best linear
estimate of v = eps - z_0 is k z_t with k = (t - (1 - t) s^2) / n^2, n^2 = (1 - t)^2 s^2 + t^2, and the remaining error
has standard deviation s / n. The network reads z_t / n, and its output is multiplied by s / n, so input and target of
the network have unit variance in every channel and at every t. EDM's preconditioning does the same for a scalar
variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class Precondition(nn.Module):
    """Scaling of input and output by channel; the identity when ``enabled`` is False."""

    std: Tensor

    def __init__(self, std: Tensor, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self.register_buffer("std", std.float().clone())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the statistics with the model, but keep them in fp32: a bf16 model must use the same values."""
        std = self.std
        super()._apply(fn, recurse)
        self.std = std.to(self.std.device)
        return self

    def _terms(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return s [1, C, 1, 1, 1], t [B, 1, f, 1, 1] and n [B, C, f, 1, 1] in fp32, of times t [B, f]."""
        s = self.std.float()[None, :, None, None, None]
        t_ = t.float()[:, None, :, None, None]
        return s, t_, torch.sqrt((1 - t_) ** 2 * s**2 + t_**2)

    def scale_in(self, z: Tensor, t: Tensor) -> Tensor:
        """Scale z [B, C, f, h, w] at times t [B, f] to unit variance."""
        if not self.enabled:
            return z
        return z.float() / self._terms(t)[2]

    def combine(self, out: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """Return v_hat of the network's output and z_t, both [B, C, f, h, w], at times t [B, f]."""
        if not self.enabled:
            return out
        s, t_, n = self._terms(t)
        return (t_ - (1 - t_) * s**2) / n**2 * z_t + s / n * out
