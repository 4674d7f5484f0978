"""Speech features at 50 Hz: log-mel in the recipe `tiny`, Whisper's encoder in the others (paper B.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from xdub.config import AudioConfig, network_path
from xdub.errors import UserError, loading_pretrained
from xdub.geometry import ROWS_PER_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperNetwork

HOP = SAMPLES_PER_FRAME // ROWS_PER_FRAME
"""Audio samples of one feature row: 320, 50 rows a second."""
_FFT = 800
"""Samples of an analysis window: 50 ms."""
_LOUDNESS = 0.05
"""RMS of the speaking parts after normalisation."""


class AudioEncoder(Protocol):
    """The interface of an audio encoder to the rest of the code."""

    dim: int
    machine_independent: bool
    """True if the rows have the same bits on every machine; a CPU then computes them on one thread."""

    def to(self, device: str | torch.device, /) -> AudioEncoder:
        """Return the encoder, with its network if it has one, on another device."""

    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), dim] float32 of mono [N] in [-1, 1] at 16 kHz; row n starts at sample 320 n."""


@lru_cache(maxsize=4)
def mel_filters(num_mels: int, fft: int = _FFT, low: float = 50.0, high: float = 7600.0) -> Tensor:
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


class LogMelEncoder:
    """Log-mel energies of a 50 ms window centred on each 20 ms row, independent of loudness, about unit range."""

    machine_independent = True

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def to(self, device: str | torch.device, /) -> LogMelEncoder:
        """Return the encoder itself: a few FFTs are not worth a transfer."""
        return self

    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), dim] of a wave [N] at 16 kHz."""
        rows = max(1, round(len(wav) / HOP))
        signal = torch.zeros(rows * HOP)
        samples = torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))[: rows * HOP]
        signal[: len(samples)] = samples
        signal = signal * (_LOUDNESS / self._speech_rms(signal))
        margin = (_FFT - HOP) // 2
        # frames [rows, _FFT]
        frames = torch.nn.functional.pad(signal, (margin, margin)).unfold(0, _FFT, HOP)
        power = torch.fft.rfft(frames * torch.hann_window(_FFT)).abs().square()
        log_mel = torch.log10(power @ mel_filters(self.dim).T + 1e-4)
        return (log_mel + 2.0) / 2.0

    @staticmethod
    def _speech_rms(signal: Tensor) -> Tensor:
        """Return the RMS of the louder half of the 20 ms rows: pauses do not amplify speech; silence stays silent.

        Rows of zeros are no sound, e.g. before the start of a recording, and do not count.
        """
        rows = signal.view(-1, HOP).square().mean(1)
        half = max(1, int(rows.count_nonzero()) // 2)
        loud = rows.sort(descending=True).values[:half].mean().sqrt()
        return loud.clamp_min(2e-3)


class WhisperEncoder:
    """Last hidden states of a Whisper encoder (transformers), 50 rows a second, in chunks of 30 s."""

    machine_independent = False

    def __init__(self, encoder: WhisperNetwork, feature_extractor: WhisperFeatureExtractor) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.feature_extractor = feature_extractor
        self.dim = int(encoder.config.d_model)

    def to(self, device: str | torch.device, /) -> WhisperEncoder:
        """Move the network to a device; return the encoder."""
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), dim] float32 of a wave [N] at 16 kHz, on the CPU."""
        rows = max(1, round(len(wav) / HOP))
        # Samples of one encoder input.
        chunk = self.encoder.config.max_source_positions * HOP
        states = []
        for start in range(0, rows * HOP, chunk):
            mel = self.feature_extractor(
                wav[start : start + chunk], sampling_rate=SAMPLE_RATE, return_tensors="pt"
            )
            inputs = mel.input_features.to(self.encoder.device, self.encoder.dtype)
            states.append(self.encoder(inputs).last_hidden_state[0].float().cpu())
        return torch.cat(states)[:rows]


def load_audio_encoder(cfg: AudioConfig) -> AudioEncoder:
    """Load the encoder of a recipe's ``audio`` section. Raise UserError if its weights are missing or do not fit."""
    if cfg.kind == "logmel":
        return LogMelEncoder(cfg.dim)
    from transformers import WhisperFeatureExtractor, WhisperModel

    path = str(network_path(cfg, "audio"))
    with loading_pretrained("audio.path", path):
        encoder = WhisperEncoder(
            WhisperModel.from_pretrained(path).encoder, WhisperFeatureExtractor.from_pretrained(path)
        )
    if encoder.dim != cfg.dim:
        raise UserError(f"audio.dim={cfg.dim}, but the encoder at {path} has {encoder.dim}")
    return encoder
