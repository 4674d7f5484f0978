"""OpenAI's log-mel spectrogram of a whole recording, computed in parts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xdub.geometry import SAMPLE_RATE

MEL_HOP = 160
"""Audio samples of one mel frame: 100 frames a second."""
WINDOW = 400
"""Samples of a Hann window: 25 ms."""
RANGE = 8.0
"""Decades of power below the loudest value of the recording to which quieter values are raised."""
QUIETEST = 1e-10
"""Least power of a band."""
PART = 30_000
"""Mel frames that are computed at once: 5 minutes."""


class LogMel:
    """Log-mel frames of one recording; a value depends on the loudest value of the whole recording.

    No sound is padded: windows at both ends of the recording read its mirror image.
    """

    def __init__(self, wav: np.ndarray, bands: int) -> None:
        """Find the loudest value of wav [N], N > 200, at 16 kHz; memory does not grow with N."""
        self.count = len(wav) // MEL_HOP
        """Number of mel frames."""
        self._wav, self._bands = wav, bands
        loudest = max(
            float(self._power(n, min(n + PART, self.count)).max()) for n in range(0, self.count, PART)
        )
        self._floor = loudest - RANGE

    def read(self, start: int, stop: int) -> Tensor:
        """Return float32 [bands, stop - start], the frames start ... stop - 1 in about [-1, 1]."""
        return (self._power(start, stop).clamp_min(self._floor) + 4.0) / 4.0

    def _power(self, start: int, stop: int) -> Tensor:
        """Return log10 of the power [bands, stop - start]; frame n is centred on sample 160 n."""
        first, last = start * MEL_HOP - WINDOW // 2, (stop - 1) * MEL_HOP + WINDOW // 2
        inside = self._wav[max(0, first) : last].astype(np.float32, copy=False)
        wav = np.pad(inside, (max(0, -first), max(0, last - len(self._wav))), mode="reflect")
        frames = torch.from_numpy(wav).unfold(0, WINDOW, MEL_HOP)
        power = torch.fft.rfft(frames * torch.hann_window(WINDOW)).abs().square()
        return (_filters(self._bands) @ power.T).clamp_min(QUIETEST).log10()


@lru_cache(maxsize=2)
def _filters(bands: int) -> Tensor:
    """Return Slaney's mel filters [bands, 201] from 0 to 8 kHz, each with unit area."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        WINDOW // 2 + 1, bands, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters.T.astype(np.float32))
