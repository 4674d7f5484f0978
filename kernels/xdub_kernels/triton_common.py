"""Helpers shared by all Triton kernels, imported only where kernels run or are built.

Names inside kernels: capitals are pointers to whole tensors and sizes, ``i_`` is the number of a program or block,
``o_`` an offset, ``p_`` a pointer to a block, ``m_`` a mask; a name without prefix is a block in registers. ``x_b`` is
the stride of axis b of X.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from xdub_kernels import dispatch

INTERPRETING = tl.constexpr(dispatch.INTERPRETING)
"""`dispatch.INTERPRETING` as a constant inside kernels."""


@triton.jit
def dot(a, b, acc):
    """Return acc + a @ b, accumulated in fp32.

    Both sides are widened in the interpreter, because it multiplies the bit patterns of bf16. fp32 inputs are
    multiplied as three TF32 products, which keeps the precision of fp32 on the tensor cores.
    """
    if INTERPRETING:
        return acc + tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, acc, input_precision="tf32x3")


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """Round x to the nearest ``dtype``; by hand in the interpreter, which would truncate fp32 to bf16."""
    if INTERPRETING and dtype == tl.bfloat16:
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        return (bits & -65536).to(tl.float32, bitcast=True).to(dtype)
    return x.to(dtype)


def padded(n: int, least: int = 16) -> int:
    """Return the next power of two: Triton's tiles have no other sizes, and matrix products none below 16."""
    return max(least, triton.next_power_of_2(n))


def rows_last_contiguous(x: Tensor) -> Tensor:
    """Return ``x`` if its last axis is contiguous and every offset inside a sample fits 32 bits, else a copy.

    Raises ``ValueError`` where a sample is so large that a copy does not help.
    """
    if x.stride(-1) == 1 and all(stride >= 0 for stride in x.stride()) and _fits(x):
        return x
    x = x.contiguous()
    if not _fits(x):
        raise ValueError(f"one sample of {list(x.shape)} has 2^31 elements or more: split it")
    return x


def strides(x: Tensor, names: str) -> dict[str, int]:
    """Return the strides of the leading axes of ``x`` as launch arguments, e.g. for ``"q_b q_l q_h"``."""
    axes = names.split()
    return dict(zip(axes, x.stride()[: len(axes)], strict=True))


def _fits(x: Tensor) -> bool:
    """Return whether every offset inside a sample of ``x`` fits 32 bits."""
    return sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True)) < 2**31


def architecture(x: Tensor) -> int:
    """Return 10 x the compute capability of the device of ``x``, e.g. 80 or 90; 0 in the interpreter.

    Tensors on the meta device are for building kernels only: their architecture is that of the active driver.
    """
    if x.device.type == "meta":
        return triton.runtime.driver.active.get_current_target().arch
    if x.device.type != "cuda":
        return 0
    major, minor = dispatch.capability(x.device.index)
    return 10 * major + minor


def device_context(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context in which launches go to the device of ``x``."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext()


def processors(x: Tensor) -> int:
    """Return the number of streaming multiprocessors of x's device; 1 in the interpreter, so that programs loop."""
    if x.device.type == "meta":
        return 108
    if x.device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(x.device).multi_processor_count
