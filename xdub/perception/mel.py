"""Log-mel energies of a wave, shared by the audio encoder of models and by SyncNets."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xdub.geometry import SAMPLE_RATE

LOUDNESS = 0.05
"""RMS to which the speaking parts of a wave are normalised."""
LOUDNESS_ROW = 320
"""Samples of the rows in which loudness is measured: 20 ms."""
QUIETEST = 2e-3
"""Least RMS that counts as speech; quieter sound is not amplified further."""
LOW, HIGH = 50.0, 7600.0
"""Range of the mel bands, Hz."""


def mel_energies(signal: Tensor, bands: int, *, hop: int, window: int) -> Tensor:
    """Return log-mel energies [..., N / hop, bands] of a wave [..., N] at 16 kHz, in about unit range at `LOUDNESS`.

    A row covers ``window`` samples under a Hann window; row n is centred on sample hop n + hop / 2.
    """
    margin = (window - hop) // 2
    # [..., rows, window]
    frames = F.pad(signal, (margin, margin)).unfold(-1, window, hop)
    power = torch.fft.rfft(frames * torch.hann_window(window, device=signal.device)).abs().square()
    energies = torch.log10(power @ mel_filters(bands, window).T.to(signal.device) + 1e-4)
    return (energies + 2.0) / 2.0


@lru_cache(maxsize=4)
def mel_filters(bands: int, window: int) -> Tensor:
    """Return triangular filters on the mel scale, [bands, window / 2 + 1], each with unit sum."""
    low, high = (2595.0 * np.log10(1.0 + hertz / 700.0) for hertz in (LOW, HIGH))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, bands + 2) / 2595.0) - 1.0)
    bins = np.linspace(0, SAMPLE_RATE / 2, window // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    # A band narrower than one bin has no weights of its own.
    filters[filters.sum(1) == 0, 0] = 1e-3
    return torch.from_numpy(filters / filters.sum(1, keepdims=True)).float()
