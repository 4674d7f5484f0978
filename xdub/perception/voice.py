"""Embedding of a voice: the GE2E speaker encoder of Resemblyzer (Wan et al. 2018), an LSTM over 1.6 s of mel energies.

The file is `pretrained.pt` of the package resemblyzer (role ``voice``). One speaker's embeddings have cosines of about
0.75 to 0.95, those of two speakers about 0.4 to 0.7.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.errors import UserError, error_reason
from xdub.geometry import SAMPLE_RATE, SAMPLES_PER_FRAME
from xdub.perception.network_files import check_finite, is_state_dict, load_weights
from xdub.perception.registry import fetch

HOP, WINDOW, BANDS = 160, 400, 40
"""Samples from row to row (100 rows a second), samples of a row, mel bands."""
ROWS = 160
"""Rows of one pass of the LSTM: 1.6 s."""
STEP = 77
"""Rows between passes: 1.3 passes a second."""
LOUDNESS = 10 ** (-25 / 20)
"""Root mean square of the voice that is embedded: -25 dB of full scale. The energies have no logarithm, so another
loudness would be another voice."""
SIZE = 256
"""Length of an embedding."""
QUIET = 0.05
"""Frames below this share of the loudest frames' level hold no voice."""
SHORTEST = 15
"""Fewest frames with a voice that are embedded: 0.6 s."""


class VoiceEncoder(nn.Module):
    """Three LSTM layers of 256 units and a projection, frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, SIZE, num_layers=3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)

    @classmethod
    def load(cls, path: str | Path | None = None) -> VoiceEncoder:
        """Load the registered file, or the one at ``path``.

        Raises:
            UserError: the file is missing and cannot be fetched, or holds other weights.
        """
        path = fetch("voice") if path is None else path
        network = cls()
        load_weights(network, _read(path), path, "the voice encoder of Resemblyzer")
        return network.eval().requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return unit embeddings [B, 256] of mel energies [B, T, 40]."""
        _, (hidden, _) = self.lstm(rows)
        return F.normalize(self.linear(hidden[-1]).relu(), dim=1)

    @torch.no_grad()
    def embed(self, audio: np.ndarray) -> np.ndarray:
        """Embed the voice of a wave [N] at 16 kHz as a unit vector [256] float32; nan if there is too little voice.

        Frames without voice are cut out first, because pauses say nothing about a voice.
        """
        wave = voiced_part(audio)
        if len(wave) < SHORTEST * SAMPLES_PER_FRAME:
            return np.full(SIZE, np.nan, np.float32)
        level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
        rows = mel_rows(torch.from_numpy(wave * np.float32(LOUDNESS / level)))
        rows = F.pad(rows, (0, 0, 0, max(0, ROWS - len(rows))))
        passes = rows.unfold(0, ROWS, STEP).transpose(1, 2)
        return F.normalize(self(passes).mean(0), dim=0).numpy()


def voiced_part(audio: np.ndarray) -> np.ndarray:
    """Return the samples of the frames [640 F] whose level exceeds `QUIET` of the loudest tenth's."""
    frames = np.asarray(audio, np.float32)[: len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    frames = frames.reshape(-1, SAMPLES_PER_FRAME)
    if not len(frames):
        return np.zeros(0, np.float32)
    levels = frames.std(axis=1, dtype=np.float64)
    return np.ascontiguousarray(frames[levels > max(QUIET * np.quantile(levels, 0.9), 1e-4)].reshape(-1))


def mel_rows(wave: Tensor) -> Tensor:
    """Return mel energies [T, 40] of a wave [N]: power of Hann windows under Slaney's filters, without a logarithm."""
    frames = F.pad(wave, (WINDOW // 2, WINDOW // 2)).unfold(0, WINDOW, HOP)
    power = torch.fft.rfft(frames * torch.hann_window(WINDOW)).abs().square()
    return power @ _filters().T


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Return Slaney's mel filters [40, 201] from 0 to 8 kHz, each of unit area."""
    edges = _slaney_hertz(np.linspace(0.0, _slaney_mel(SAMPLE_RATE / 2), BANDS + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    return torch.from_numpy(filters * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def _slaney_mel(hertz: float) -> float:
    """Return the mel of Slaney's scale, linear up to 1 kHz and logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def _read(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors that the network uses; the file also holds the scale of its training loss."""
    try:
        # Only tensors and containers are unpickled.
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["model_state"]
    except Exception as error:
        raise UserError(f"{path}: not a voice encoder: {error_reason(error)}") from error
    if not is_state_dict(state):
        raise UserError(f"{path}: not a voice encoder: no state dict of tensors")
    check_finite(path, state.items())
    return {name: value for name, value in state.items() if name.startswith(("lstm.", "linear."))}
