"""Audio encoders of X-Dub's published editor: the last block of Whisper, and the concatenation with wav2vec2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from xdub.model.speech.log_mel import LogMel
from xdub.model.speech.rows import Input, InputRows, JoinedRows, Rows, all_rows, audible, row_count
from xdub.model.speech.wave_encoders import Wav2Vec2

if TYPE_CHECKING:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperNetwork


class BlockWhisper:
    """Output of the last block of a Whisper encoder, before the final norm.

    The log-mel spectrogram is that of the whole recording. It is divided into chunks of 3,000 frames, and the last
    chunk is filled with zeros, while the feature extractor of transformers fills the wave with silence.
    """

    machine_independent = False

    def __init__(self, encoder: WhisperNetwork) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.encoder.set_submodule("layer_norm", nn.Identity())
        self.dim = int(encoder.config.d_model)
        self._rows = int(encoder.config.max_source_positions)

    def to(self, device: str | torch.device, /) -> BlockWhisper:
        """Move the network to a device; return the encoder."""
        self.encoder.to(device)
        return self

    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), d] float32 of a wave [N] at 16 kHz, on the CPU."""
        return all_rows(self.open(wav))

    def open(self, wav: np.ndarray, *, ended: bool = False) -> Rows:
        """Return the rows of a recording [N] at 16 kHz; what follows it does not matter."""
        mel = LogMel(audible(wav), self.encoder.config.num_mel_bins)
        # A chunk has two mel frames a row; half a row at the end is dropped.
        rows = max(1, mel.count // 2)
        inputs = [Input(n, n, min(n + self._rows, rows)) for n in range(0, rows, self._rows)]

        @torch.no_grad()
        def encode(part: Input) -> Tensor:
            chunk = torch.zeros(1, self.encoder.config.num_mel_bins, 2 * self._rows)
            frames = mel.read(2 * part.start, min(2 * (part.start + self._rows), mel.count))
            chunk[0, :, : frames.shape[1]] = frames
            states = self.encoder(chunk.to(self.encoder.device)).last_hidden_state[0]
            return states[: part.stop - part.start].float().cpu()

        return InputRows(row_count(len(wav)), inputs, encode)


class JoinedEncoder:
    """Rows of several encoders, concatenated in their order: those of X-Dub are Whisper's, then wav2vec2's."""

    machine_independent = False

    def __init__(self, parts: Sequence[BlockWhisper | Wav2Vec2]) -> None:
        self.parts, self.dim = parts, sum(part.dim for part in parts)

    def to(self, device: str | torch.device, /) -> JoinedEncoder:
        """Move the networks to a device; return the encoder."""
        for part in self.parts:
            part.to(device)
        return self

    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), d] float32 of a wave [N] at 16 kHz, on the CPU."""
        return all_rows(self.open(wav))

    def open(self, wav: np.ndarray, *, ended: bool = False) -> Rows:
        """Return the rows of a recording [N] at 16 kHz."""
        return JoinedRows([part.open(wav, ended=ended) for part in self.parts])
