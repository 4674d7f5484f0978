"""Voice activity by Silero VAD, in torch: the probability of speech in every 32 ms of a wave at 16 kHz.

The weights are those of the file `silero_vad_16k_op15.onnx` of the package silero-vad (role ``voice_activity``); the
values agree with the package's own within 1e-6. Spectra of all chunks are computed as one batch, and an LSTM of 128
units then runs over the chunks, so a minute of sound costs a second of a core or less.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.geometry import SAMPLES_PER_FRAME
from xdub.perception.network_files import check_finite, load_weights
from xdub.perception.onnx_weights import read_initializers
from xdub.perception.registry import fetch

CHUNK = 512
"""Samples of a chunk: 32 ms."""
CONTEXT = 64
"""Samples of the preceding chunk that the network reads before a chunk."""
FFT, HOP = 256, 128
"""Samples of a row of the spectrum, and from row to row."""
BINS = FFT // 2 + 1
"""Frequencies of a row."""
STATE = 128
"""Units of the LSTM."""
NAMES = {
    "model.stft.forward_basis_buffer": "stft_conv.weight",
    **{
        f"model.encoder.{n}.reparam_conv.{part}": f"conv{n + 1}.{part}"
        for n in range(4)
        for part in ("weight", "bias")
    },
    **{
        f"model.decoder.rnn.{part}": f"lstm_cell.{part}"
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    },
    **{f"model.decoder.decoder.2.{part}": f"final_conv.{part}" for part in ("weight", "bias")},
}
"""Name in the file -> name in this module."""
BATCH = 2048
"""Chunks whose spectra are computed together: about a minute."""


class VoiceActivity(nn.Module):
    """Silero VAD for 16 kHz, frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, FFT, stride=HOP, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, STATE, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(STATE, STATE)
        self.final_conv = nn.Conv1d(STATE, 1, 1)

    @classmethod
    def load(cls, path: str | Path | None = None) -> VoiceActivity:
        """Load the registered file, or the one at ``path``.

        Raises:
            UserError: the file is missing and cannot be fetched, or holds other weights.
        """
        path = fetch("voice_activity") if path is None else path
        weights = read_initializers(path)
        check_finite(path, weights.items())
        network = cls()
        state = {NAMES.get(name, name): value for name, value in weights.items()}
        load_weights(network, state, path, "Silero VAD")
        return network.eval().requires_grad_(False)

    def forward(self, chunks: Tensor) -> Tensor:
        """Return the probability of speech [T] of consecutive chunks [T, 576], each with its context before it."""
        features = torch.cat([self._features(part) for part in chunks.split(BATCH)])
        state = features.new_zeros(1, STATE), features.new_zeros(1, STATE)
        outputs = []
        for row in features:
            state = self.lstm_cell(row[None], state)
            outputs.append(state[0])
        return self.final_conv(torch.cat(outputs).relu()[..., None]).sigmoid().flatten()

    @torch.no_grad()
    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        """Return the probability of speech [F] float32 in each video frame of a wave [640 F] at 16 kHz."""
        frames = len(audio) // SAMPLES_PER_FRAME
        if frames == 0:
            return np.zeros(0, np.float32)
        count = -(-len(audio) // CHUNK)
        wave = torch.zeros(CONTEXT + count * CHUNK)
        wave[CONTEXT : CONTEXT + len(audio)] = torch.from_numpy(np.ascontiguousarray(audio, np.float32))
        speech = self(wave.unfold(0, CONTEXT + CHUNK, CHUNK)).numpy()
        # The chunk in which a frame's middle lies.
        middle = (np.arange(frames) * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2) // CHUNK
        return speech[middle]

    def _features(self, chunks: Tensor) -> Tensor:
        padded = F.pad(chunks[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(padded).split(BINS, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        return x.squeeze(-1)
