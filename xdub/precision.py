"""Number formats and devices of all networks: training, pairs, dubbing and evaluation decide them here.

| network | weights and activations |
|---|---|
| backbone, in training, pairs and dubbing | the phase's `train.precision`; buffers and the sampler's state are fp32 |
| codec | the recipe's `train.precision`; a linear codec is cheap and stays fp32 |
| audio encoder, networks of losses and of the pair filters | fp32 |

A backbone in bf16 has bf16 weights, on a CPU too. DeepSpeed trains the network in the same way, so pairs and dubs round
where training rounds, and the weights need half the memory. Autocast would keep fp32 weights and another rounding.

A codec in bf16 differs from fp32 by 2 % of the latents' deviation (RMS), and its decoded pixels have 44 dB (measured on
Wan's 2.1 VAE at its true width with random weights). The public release computes its codec in bf16, too. Encoding is
nearly half of the generator's training, and bf16 is twice as fast as TF32. The thresholds of judges were calibrated in
fp32, so judges stay in fp32.

On a GPU, products of fp32 numbers run in TF32, which has 10 bits of mantissa instead of 23.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from xdub.errors import UserError

Network = TypeVar("Network", bound=nn.Module)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""A recipe's `train.precision` -> type of weights and activations."""


MOMENT_BLOCK = 256
"""Numbers of a moment in 8 bits that share a scale in fp32 (`train.optimizer: adamw8bit`)."""


def dtype_of(precision: str) -> torch.dtype:
    """Return the type that a recipe's `train.precision` names. Raise UserError for another name."""
    if precision not in DTYPES:
        raise UserError(f"train.precision={precision!r}: use 'fp32' or 'bf16'")
    return DTYPES[precision]


def number_bytes(precision: str) -> int:
    """Return the bytes of one number in a recipe's `train.precision`."""
    return dtype_of(precision).itemsize


def open_device(device: str | torch.device | None = None) -> torch.device:
    """Return a device that is ready to compute on, by default the GPU of this process, else the CPU.

    On a GPU, products and convolutions of fp32 numbers run in TF32 from here on. Every process that runs networks calls
    this function once, before it moves them.
    """
    opened = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if opened.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    return opened


def network_in(network: Network, precision: str, device: str | torch.device) -> Network:
    """Move a network to a device, with its floating-point parameters in ``precision``; buffers keep their type."""
    dtype = dtype_of(precision)
    network.to(device)
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return network


def frozen(network: Network, device: str | torch.device) -> Network:
    """Move a judge or a network of a loss to a device: fp32, in eval mode, without gradients of its weights."""
    return network_in(network, "fp32", device).eval().requires_grad_(False)


@contextmanager
def one_thread(*, enabled: bool = True) -> Iterator[None]:
    """Run torch on one thread, so that the order of its sums, and so every bit, is the same on every machine."""
    if not enabled:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
