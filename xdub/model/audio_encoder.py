"""Speech features at 50 Hz: log-mel in the recipe `tiny`, Whisper's encoder in the paper's (B.2).

The encoders of the published editors are in `xdub.model.speech`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from xdub.config import PACKAGED, AudioConfig, required_path
from xdub.errors import UserError, loading_pretrained
from xdub.geometry import ROWS_PER_FRAME, SAMPLE_RATE, SOUND_MARGIN
from xdub.model.speech.rows import HOP, overlapping
from xdub.perception.mel import LOUDNESS, LOUDNESS_ROW, QUIETEST, mel_energies
from xdub.perception.network_files import load_pretrained

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperNetwork

_WINDOW = 800
"""Samples of an analysis window: 50 ms."""


class AudioEncoder(Protocol):
    """The interface of an audio encoder to the rest of the code."""

    dim: int
    machine_independent: bool
    """True if the rows have the same bits on every machine; a CPU then computes them on one thread."""

    def to(self, device: str | torch.device, /) -> AudioEncoder:
        """Return the encoder, with its network if it has one, on another device."""

    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), dim] float32 of mono [N] in [-1, 1] at 16 kHz; row n starts at sample 320 n."""


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
        signal = signal * (LOUDNESS / self._speech_rms(signal))
        return mel_energies(signal, self.dim, hop=HOP, window=_WINDOW)

    @staticmethod
    def _speech_rms(signal: Tensor) -> Tensor:
        """Return the RMS of the louder half of the 20 ms rows: pauses do not amplify speech; silence stays silent.

        Rows of zeros do not count, because they are not sound (`xdub.data.sound`).
        """
        rows = signal.view(-1, LOUDNESS_ROW).square().mean(1)
        half = max(1, int(rows.count_nonzero()) // 2)
        loud = rows.sort(descending=True).values[:half].mean().sqrt()
        return loud.clamp_min(QUIETEST)


class WhisperEncoder:
    """Last hidden states of a Whisper encoder (transformers), 50 rows a second, in overlapping inputs of 30 s."""

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
        rows, chunk = max(1, round(len(wav) / HOP)), int(self.encoder.config.max_source_positions)
        states = []
        for part in overlapping(rows, chunk, ROWS_PER_FRAME * SOUND_MARGIN):
            mel = self.feature_extractor(
                wav[part.start * HOP : (part.start + chunk) * HOP],
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
            )
            inputs = mel.input_features.to(self.encoder.device, self.encoder.dtype)
            hidden = self.encoder(inputs).last_hidden_state[0].float().cpu()
            states.append(hidden[part.keep - part.start : part.stop - part.start])
        return torch.cat(states)


def load_audio_encoder(cfg: AudioConfig) -> AudioEncoder:
    """Load the encoder of a recipe's ``audio`` section. Raise UserError if its weights are missing or do not fit."""
    if cfg.kind == "logmel":
        return LogMelEncoder(cfg.dim)
    path = required_path(cfg, "audio")
    encoder = _load(cfg, path)
    if encoder.dim != cfg.dim:
        raise UserError(f"audio.dim={cfg.dim}, but the encoder at {path} has {encoder.dim}")
    return encoder


def _load(cfg: AudioConfig, path: str) -> AudioEncoder:
    """Load the encoder of a kind that has weights."""
    if cfg.kind == "whisper+wav2vec2":
        from xdub.model.speech.load import load_joined

        return load_joined(path)
    if cfg.kind == "hubert":
        from xdub.model.speech.load import load_hubert

        return load_hubert(path)
    if path in PACKAGED["audio"]:
        from xdub.model.packaged_whisper import packaged_whisper

        return _load_whisper(str(packaged_whisper(path)))
    return _load_whisper(path)


def _load_whisper(path: str) -> WhisperEncoder:
    """Load a folder or hub name of a whole Whisper model, or of its encoder alone."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperNetwork

    setting = "audio.path"
    with loading_pretrained(setting, path):
        alone = WhisperConfig.from_pretrained(path).architectures == [WhisperNetwork.__name__]
        extractor = WhisperFeatureExtractor.from_pretrained(path)
    if alone:
        return WhisperEncoder(load_pretrained(WhisperNetwork, setting, path), extractor)
    return WhisperEncoder(load_pretrained(WhisperModel, setting, path, part="encoder.").encoder, extractor)
