"""Choice of the implementation, and the argument checks that all operations share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "reference", "triton")
"""Values of every operation's ``impl``."""
TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Dtypes that the Triton kernels support."""
CAPABILITIES = ((8, 0), (9, 0))
"""Compute capabilities that the Triton kernels are built and checked for: A100; H100, H200. Other GPUs have less shared
memory, or another instruction set."""
HAVE_TRITON = importlib.util.find_spec("triton") is not None
"""True if Triton is installed. Triton is imported only when a kernel runs."""
INTERPRETING = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
"""True if Triton's interpreter runs the kernels on CPU tensors: for tests, thousands of times slower."""

Capability = tuple[int, int] | None
"""Compute capability of a GPU; None for a GPU without one, or of which it is not known."""

# Plain globals, which torch.compile can read without a graph break.
_rehearsing = False
_rehearsed_has_kernels = False


@contextmanager
def rehearsing_gpu(capability: Capability = CAPABILITIES[-1]) -> Iterator[None]:
    """Make ``"auto"`` choose as on a GPU of a compute capability.

    On the meta device, memory and FLOPs of a run can be measured so. On the CPU, Triton must be interpreted.
    """
    global _rehearsing, _rehearsed_has_kernels
    before = _rehearsing, _rehearsed_has_kernels
    _rehearsing, _rehearsed_has_kernels = True, capability in CAPABILITIES
    try:
        yield
    finally:
        _rehearsing, _rehearsed_has_kernels = before


def like_gpu(*tensors: Tensor) -> bool:
    """Return whether these tensors are on a GPU, or are treated so by `rehearsing_gpu`."""
    return _rehearsing or all(x.device.type == "cuda" for x in tensors)


class UnavailableError(ValueError):
    """Raised when an implementation was requested by name and cannot run on these tensors."""


def choose(impl: str, op: str, *tensors: Tensor) -> str:
    """Return ``"reference"`` or ``"triton"``, the implementation that runs for these tensors.

    ``"auto"`` is Triton on a GPU that has it, for fp32, bf16 and fp16; the reference everywhere else. Raises
    ``ValueError`` for an unknown name, and ``UnavailableError`` with the reason when Triton was requested by
    name and cannot run: an explicit request never falls back.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl == "reference":
        return "reference"
    obstacle = triton_obstacle(*tensors)
    if impl == "auto":
        return "triton" if like_gpu(*tensors) and obstacle is None else "reference"
    if obstacle is not None:
        raise UnavailableError(f"impl='triton': {op} {obstacle}; use impl='reference' or 'auto'")
    return "triton"


def triton_obstacle(*tensors: Tensor) -> str | None:
    """Return why Triton kernels cannot run on these tensors; None if they can."""
    if not HAVE_TRITON:
        return "needs the package triton, which is not installed"
    for x in tensors:
        if x.dtype not in TRITON_DTYPES:
            return f"has no kernel for {x.dtype}"
        if x.device.type == "cuda":
            if torch.version.hip or capability(x.device.index) not in CAPABILITIES:
                return f"is built for A100, H100 and H200; {x.device} is another GPU"
        # A rehearsal needs shapes only.
        elif x.device.type == "meta" and _rehearsing:
            if not _rehearsed_has_kernels:
                return "is built for A100, H100 and H200; the rehearsed GPU is another one"
        elif x.device.type != "cpu" or not INTERPRETING:
            return f"needs tensors on a CUDA device, got {x.device} (TRITON_INTERPRET=1 interprets it on the CPU)"
    return None


def capability(index: int | None) -> tuple[int, int]:
    """Return the compute capability of CUDA device ``index`` (None: the current device)."""
    return torch.cuda.get_device_capability(index)


# torch.compiler.assume_constant_result sets this attribute, but calling it imports the whole compiler for seconds.
setattr(capability, "_dynamo_marked_constant", True)  # noqa: B010


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the precision inside a reference: float64 if any input has it, float32 for everything narrower."""
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast does not narrow a reference's arithmetic."""
    # The meta device has no autocast.
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(device_type=x.device.type, enabled=False)


def check_floating(name: str, x: Tensor, shape: str) -> None:
    """Raise ``ValueError`` unless ``x`` is floating point with one axis per letter of ``shape``, e.g. ``"B L H"``."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor [{shape}], got {type(x).__name__}")
    if x.dim() != len(shape.split()):
        raise ValueError(f"{name} must be [{shape}], got shape {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} must be floating point, got {x.dtype}")


def check_like(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` has the shape, dtype and device of ``other``."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.shape != other.shape:
        raise ValueError(f"{name} must have {other_name}'s shape {tuple(other.shape)}, got {tuple(x.shape)}")
    if x.dtype != other.dtype:
        raise ValueError(f"{name} must have {other_name}'s dtype {other.dtype}, got {x.dtype}")
    check_device(name, x, other_name, other)


def check_device(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is on the device of ``other``."""
    if x.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}, got {x.device}")


def check_integers(name: str, x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is an integer tensor (bool is not an integer)."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be an integer tensor, got {type(x).__name__}")
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
        raise ValueError(f"{name} must be an integer tensor, got {x.dtype}")
