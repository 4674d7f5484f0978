"""Sizes and FLOPs of wav2vec2 base and of the blocks of HuBERT large whose states are features.

The formulas are those of their convolutions and matrix products; `tests/plan/test_speech_cost.py` counts them on the
networks of transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xdub.config.network_sections import HUBERT_STATES
from xdub.geometry import SAMPLE_RATE
from xdub.precision import number_bytes

CHANNELS = 512
"""Channels of the convolutions that read the wave."""
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
"""Width and stride of these convolutions."""
POSITIONS, GROUPS = 128, 16
"""Width and groups of the convolution of positions."""
COPIES = 3
"""Tensors as large as the first convolution's output that one pass holds at its peak, with its norm and GELU."""


@dataclass(frozen=True)
class WaveNetwork:
    """A network that reads a wave."""

    width: int
    blocks: int
    large: bool
    """True for the form of HuBERT large: every convolution has a bias and a norm, and no norm follows the blocks."""

    def parameters(self) -> int:
        """Return the number of weights that a pass uses."""
        d, c = self.width, CHANNELS
        convolutions = c * KERNELS[0] + sum(c * c * kernel for kernel in KERNELS[1:])
        norms = len(KERNELS) * 3 * c if self.large else 2 * c
        projection = 2 * c + c * d + d
        positions = d * (d // GROUPS) * POSITIONS + POSITIONS + d
        last = 0 if self.large else 2 * d
        # The vector in place of masked rows is stored with the network.
        return convolutions + norms + projection + positions + last + d + self.blocks * (12 * d * d + 13 * d)

    def flops(self, samples: float) -> float:
        """Return the FLOPs of one pass over a wave."""
        d, c, steps, total = self.width, CHANNELS, samples, 0.0
        for n, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True)):
            steps = (steps - kernel) // stride + 1
            total += 2 * (c if n else 1) * c * kernel * steps
        # The convolution of positions has an even width, and computes one row more than it returns.
        positions = 2 * d * (d // GROUPS) * POSITIONS * (steps + 1)
        return total + 2 * steps * c * d + positions + self.blocks * (24 * steps * d * d + 4 * steps**2 * d)

    def working_bytes(self, samples: float) -> float:
        """Return the bytes of one pass beside the weights: the first convolution's output is the largest tensor.

        One pass over 60 s took 1.0 GB for wav2vec2 base and 1.4 GB for HuBERT large, measured on a CPU.
        """
        first = COPIES * CHANNELS * samples / STRIDES[0]
        states = (self.blocks + 1) * self.width * samples / math.prod(STRIDES) if self.large else 0.0
        return number_bytes("fp32") * (first + states)


def wav2vec2_base(width: int) -> WaveNetwork:
    """Return the network of X-Dub at a width."""
    return WaveNetwork(width, blocks=12, large=False)


def hubert_large(width: int) -> WaveNetwork:
    """Return the blocks of HuBERT that TBDub uses, at a width."""
    return WaveNetwork(width, blocks=HUBERT_STATES[-1], large=True)


ONE_PASS = 60 * SAMPLE_RATE
"""Samples of the longest recording that is encoded in one pass, and of the inputs of longer ones."""
STEP = 50 * SAMPLE_RATE
"""Samples that each input of a longer recording adds: two inputs share 10 s."""
