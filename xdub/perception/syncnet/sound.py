"""Audio front ends of SyncNets, computed from the wave: log-mel rows and the MFCC of SyncNet v2.

They are independent of the recipe's audio encoder, so any recipe can train with any SyncNet.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xdub.geometry import SAMPLE_RATE
from xdub.perception.mel import LOUDNESS, LOUDNESS_ROW, QUIETEST, mel_energies

INT16 = 32768.0
"""Full scale of the samples from which SyncNet v2's MFCC are computed."""
MFCC_HOP = 160
"""Samples between two MFCC rows: 100 rows a second."""
_MFCC_FRAME, _MFCC_FFT, _FILTERS, _COEFFICIENTS, _LIFTER, _PREEMPHASIS = 400, 512, 26, 13, 22, 0.97
_EPSILON = float(np.finfo(np.float64).eps)


@torch.no_grad()
def log_mel(sound: Tensor, bands: int, *, hop: int = 320, window: int = 800) -> Tensor:
    """Return log-mel energies [B, N / hop, bands] of about unit range, independent of loudness.

    Args:
        sound: [B, N] at 16 kHz.
        hop: samples between two rows; row n is centred on sample hop n + hop / 2.
        window: samples of a row.
    """
    signal = sound.float()
    signal = signal * (LOUDNESS / _speech_rms(signal))[:, None]
    return mel_energies(signal, bands, hop=hop, window=window)


def _speech_rms(signal: Tensor) -> Tensor:
    """Return the RMS [B] of the louder half of the 20 ms rows of [B, N]; rows of zeros do not count."""
    whole = signal[:, : signal.shape[1] // LOUDNESS_ROW * LOUDNESS_ROW]
    power = whole.unflatten(1, (-1, LOUDNESS_ROW)).square().mean(2).sort(1, descending=True).values
    half = ((power > 0).sum(1) // 2).clamp_min(1)
    sums = power.cumsum(1).gather(1, half[:, None] - 1)[:, 0]
    return (sums / half).sqrt().clamp_min(QUIETEST)


@torch.no_grad()
def mfcc(sound: Tensor) -> Tensor:
    """Return MFCC [B, T, 13] at 100 Hz of sound [B, N] in [-1, 1]; row n begins at sample 160 n.

    They are the defaults of the package python_speech_features on 16-bit samples: 25 ms without a window function,
    pre-emphasis 0.97, 26 filters, lifter 22, and the log energy in place of coefficient 0.
    """
    samples = sound.float() * INT16
    samples = torch.cat([samples[:, :1], samples[:, 1:] - _PREEMPHASIS * samples[:, :-1]], 1)
    rows = 1 + max(0, math.ceil((samples.shape[1] - _MFCC_FRAME) / MFCC_HOP))
    samples = F.pad(samples, (0, (rows - 1) * MFCC_HOP + _MFCC_FRAME - samples.shape[1]))
    frames = samples.unfold(1, _MFCC_FRAME, MFCC_HOP)
    power = torch.fft.rfft(frames, _MFCC_FFT).abs().square() / _MFCC_FFT
    energy = power.sum(-1).clamp_min(_EPSILON).log()
    bands = (power @ _mfcc_filters().to(sound.device)).clamp_min(_EPSILON).log()
    cepstra = bands @ _cosines().to(sound.device)
    return torch.cat([energy[..., None], cepstra[..., 1:]], -1)


@lru_cache(maxsize=1)
def _mfcc_filters() -> Tensor:
    """Return triangular filters [257, 26] whose edges are whole bins, up to 8 kHz."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    edges = np.floor((_MFCC_FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(_MFCC_FFT // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - low) / np.maximum(middle - low, 1)
    falling = (high - bins) / np.maximum(high - middle, 1)
    filters = np.where((bins >= low) & (bins < middle), rising, 0.0)
    filters = np.where((bins >= middle) & (bins < high), falling, filters)
    return torch.from_numpy(filters).float()


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """Return the orthonormal DCT-II of 26 bands with the lifter, [26, 13]."""
    band, order = np.arange(_FILTERS)[:, None], np.arange(_COEFFICIENTS)
    basis = np.cos(np.pi * order * (2 * band + 1) / (2 * _FILTERS)) * math.sqrt(2 / _FILTERS)
    basis[:, 0] /= math.sqrt(2)
    lifter = 1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER)
    return torch.from_numpy(basis * lifter).float()
