"""Mel filters, shared by the log-mel features of models and of SyncNets."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xdub.geometry import SAMPLE_RATE


@lru_cache(maxsize=4)
def mel_filters(num_mels: int, fft: int, low: float = 50.0, high: float = 7600.0) -> Tensor:
    """Return triangular filters on the mel scale, [num_mels, fft / 2 + 1], each with unit sum."""
    to_mel = lambda hz: 2595.0 * np.log10(1.0 + hz / 700.0)  # noqa: E731
    edges = 700.0 * (10.0 ** (np.linspace(to_mel(low), to_mel(high), num_mels + 2) / 2595.0) - 1.0)
    bins = np.linspace(0, SAMPLE_RATE / 2, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    # A band narrower than one bin has no weights of its own.
    filters[filters.sum(1) == 0, 0] = 1e-3
    return torch.from_numpy(filters / filters.sum(1, keepdims=True)).float()
