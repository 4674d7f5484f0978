"""wav2vec2 and HuBERT, which hear the wave of a whole recording, 50 rows a second.

X-Dub and TBDub encode a whole recording in one pass, whose memory grows with it. Recordings of up to `ONE_PASS` are one
pass here, too, which is exact. Longer recordings are encoded in inputs of that length that overlap by 10 s, so their
features differ slightly from those of one pass, because each input attends to itself alone. Means and variances are
those of the whole recording in either case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from xdub.config.network_sections import HUBERT_STATES
from xdub.geometry import FPS, ROWS_PER_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME
from xdub.model.speech.rows import (
    FIELD,
    HOP,
    Input,
    InputRows,
    Rows,
    all_rows,
    audible,
    overlapping,
    row_count,
)

if TYPE_CHECKING:
    from transformers import HubertModel, Wav2Vec2Model

ONE_PASS = 60 * FPS * ROWS_PER_FRAME
"""Rows of the longest recording that is encoded in one pass: 60 s. The first convolution has 512 channels at 3.2 kHz,
so such a pass takes 1.0 GB (wav2vec2 base) or 1.4 GB (HuBERT large) beside the weights."""
MARGIN = 5 * FPS * ROWS_PER_FRAME
"""Rows that a longer recording's input has on either side of the rows that are used: 5 s."""
NORM_BLOCK = 32_000
"""Steps of wav2vec2's first convolution that are computed at once for its norm: 10 s, 65 MB."""
SILENCE_FRAMES = 77
"""Video frames of silence that follow a recording that HuBERT hears to its end, as in TBDub."""
RAMP = 160
"""Samples in which the last value of a recording falls to silence: 10 ms."""
EPS = 1e-7
"""Number added to the variance of a wave, as in the feature extractor of transformers."""
Heard = Callable[[int, int], Tensor]
"""Function of (start, stop) that returns these samples of a recording, normalised, [1, stop - start]."""
Moments = tuple[Tensor, Tensor]
"""Mean and variance [C] of channels."""


class RecordingNorm(nn.Module):
    """The norm of wav2vec2's first convolution: mean and variance of a channel are those over a whole recording."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.moments: Moments | None = None
        """Mean and variance of the recording that the input is a part of; None: the input is the recording."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, C, T]."""
        if self.moments is None:
            return nn.functional.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        mean, variance = (value.to(x.device, x.dtype) for value in self.moments)
        return nn.functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


class _WaveEncoder:
    """A network that hears a wave of zero mean and unit variance, over the whole recording."""

    machine_independent = False
    dim: int

    def __init__(
        self, encoder: Wav2Vec2Model | HubertModel, *, one_pass: int = ONE_PASS, margin: int = MARGIN
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self._one_pass, self._margin = one_pass, margin

    def encode(self, wav: np.ndarray) -> Tensor:
        """Return rows [round(N / 320), d] float32 of a wave [N] at 16 kHz, on the CPU."""
        return all_rows(self.open(wav))

    def open(self, wav: np.ndarray, *, ended: bool = False) -> Rows:
        """Return the rows of a recording [N] at 16 kHz; the network has one row less, so the last row is repeated."""
        count, wav = row_count(len(wav)), audible(wav)
        mean, variance = moments(wav)
        scale = 1 / np.sqrt(variance + EPS)
        inputs = overlapping((len(wav) - FIELD) // HOP + 1, self._one_pass, self._margin)

        def heard(start: int, stop: int) -> Tensor:
            part = ((wav[start:stop] - mean) * scale).astype(np.float32)
            return torch.from_numpy(part)[None].to(self.encoder.device)

        norms = self.recording_norms(heard, len(wav)) if len(inputs) > 1 else None

        @torch.no_grad()
        def encode(part: Input) -> Tensor:
            # An input that others follow ends with the samples of its last row.
            end = len(wav) if part is inputs[-1] else (part.start + self._one_pass - 1) * HOP + FIELD
            rows = self.states(heard(part.start * HOP, end), norms)[0]
            return rows[part.keep - part.start : part.stop - part.start].float().cpu()

        return InputRows(count, inputs, encode)

    def recording_norms(self, heard: Heard, samples: int) -> Moments | None:
        """Return the mean and variance of a norm over the whole recording; None if the network has no such norm."""
        return None

    def states(self, wav: Tensor, norms: Moments | None) -> Tensor:
        """Return rows [1, T, d] of a normalised wave [1, N]; ``norms`` are those of `recording_norms`."""
        raise NotImplementedError


class Wav2Vec2(_WaveEncoder):
    """Last hidden state of a wav2vec 2.0."""

    def __init__(self, encoder: Wav2Vec2Model, *, one_pass: int = ONE_PASS, margin: int = MARGIN) -> None:
        super().__init__(encoder, one_pass=one_pass, margin=margin)
        self.dim = int(encoder.config.hidden_size)
        first = encoder.feature_extractor.conv_layers[0]
        convolution, norm = first.get_submodule("conv"), first.get_submodule("layer_norm")
        assert isinstance(convolution, nn.Conv1d)
        self._convolution = convolution
        # Networks like wav2vec2 large norm the channels of a row instead.
        self._norm = RecordingNorm(norm) if isinstance(norm, nn.GroupNorm) else None
        if self._norm is not None:
            first.set_submodule("layer_norm", self._norm)

    def to(self, device: str | torch.device, /) -> Wav2Vec2:
        """Move the network to a device; return the encoder."""
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def recording_norms(self, heard: Heard, samples: int) -> Moments | None:
        """Return mean and variance [C] of the first convolution's channels over the whole recording."""
        if self._norm is None:
            return None
        (kernel,), (stride,) = self._convolution.kernel_size, self._convolution.stride
        count = (samples - kernel) // stride + 1
        total = squares = torch.zeros((), dtype=torch.float64)
        for start in range(0, count, NORM_BLOCK):
            stop = min(start + NORM_BLOCK, count)
            part = (
                self._convolution(heard(start * stride, (stop - 1) * stride + kernel)[:, None])[0]
                .double()
                .cpu()
            )
            total, squares = total + part.sum(1), squares + part.square().sum(1)
        mean = total / count
        return mean, squares / count - mean.square()

    def states(self, wav: Tensor, norms: Moments | None) -> Tensor:
        """Return rows [1, T, d] of a normalised wave [1, N]."""
        if self._norm is not None:
            self._norm.moments = norms
        return self.encoder(wav).last_hidden_state


class Hubert(_WaveEncoder):
    """Hidden states 9 to 12 of a HuBERT large; the value of channel c in state 9 + n stands at column 4 c + n.

    A recording that is heard to its end is followed by silence, so a mouth closes after the last word.
    """

    def __init__(self, encoder: HubertModel, *, one_pass: int = ONE_PASS, margin: int = MARGIN) -> None:
        """Keep the blocks that the rows need. ``encoder`` normalises within its blocks, as HuBERT large does."""
        super().__init__(encoder, one_pass=one_pass, margin=margin)
        self.dim = len(HUBERT_STATES) * int(encoder.config.hidden_size)
        blocks = HUBERT_STATES[-1]
        encoder.encoder.layers = encoder.encoder.layers[:blocks]
        # The final norm would change the last of the states.
        encoder.encoder.set_submodule("layer_norm", nn.Identity())

    def to(self, device: str | torch.device, /) -> Hubert:
        """Move the network to a device; return the encoder."""
        self.encoder.to(device)
        return self

    def open(self, wav: np.ndarray, *, ended: bool = False) -> Rows:
        """Return the rows of a recording [N] at 16 kHz, and of the silence behind it if the recording has ended."""
        return super().open(with_silence(wav) if ended else wav)

    def states(self, wav: Tensor, norms: Moments | None) -> Tensor:
        """Return rows [1, T, d] of a normalised wave [1, N]."""
        states = self.encoder(wav, output_hidden_states=True).hidden_states
        return torch.stack([states[n] for n in HUBERT_STATES], -1).flatten(-2)


def moments(wav: np.ndarray) -> tuple[float, float]:
    """Return mean and variance of a wave in float64, block by block, without a copy of the wave."""
    mean = float(wav.mean(dtype=np.float64))
    size = 60 * SAMPLE_RATE
    blocks = (wav[n : n + size].astype(np.float64) - mean for n in range(0, len(wav), size))
    return mean, sum(float(block @ block) for block in blocks) / len(wav)


def with_silence(wav: np.ndarray) -> np.ndarray:
    """Return a recording [N] with `SILENCE_FRAMES` of silence, to which its last value falls in a straight line."""
    tail = np.zeros(SILENCE_FRAMES * SAMPLES_PER_FRAME, np.float32)
    if len(wav):
        tail[:RAMP] = np.linspace(float(wav[-1]), 0.0, RAMP + 1)[1:]
    return np.concatenate([wav, tail], dtype=np.float32)
