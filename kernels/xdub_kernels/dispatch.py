"""Which implementation runs, and the argument checks all operations share."""

from __future__ import annotations

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "reference", "triton")


class UnavailableError(ValueError):
    """An implementation was asked for by name and cannot run here."""


def choose(impl: str, op: str) -> str:
    """Name of the implementation to run; ``"auto"`` is the reference on every device in this version.

    Raises ``ValueError`` for an unknown name and ``UnavailableError`` for one that is not part of this
    version: an explicit request never falls back.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl == "triton":
        raise UnavailableError(
            f"impl='triton': {op} has no Triton implementation in this version; use 'reference' or 'auto'"
        )
    return "reference"


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Precision inside a reference: float64 if any input has it, float32 for everything narrower."""
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def full_precision(x: Tensor) -> torch.autocast:
    """Context in which autocast does not narrow a reference's arithmetic."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def check_floating(name: str, x: Tensor, shape: str) -> None:
    """``x`` is a floating point tensor with a dimension for each letter of ``shape``, e.g. ``"B L H D"``."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor [{shape}], got {type(x).__name__}")
    if x.dim() != len(shape.split()):
        raise ValueError(f"{name} must be [{shape}], got shape {tuple(x.shape)}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} must be floating point, got {x.dtype}")


def check_like(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """``x`` has the shape, dtype and device of ``other``."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.shape != other.shape:
        raise ValueError(f"{name} must have {other_name}'s shape {tuple(other.shape)}, got {tuple(x.shape)}")
    if x.dtype != other.dtype:
        raise ValueError(f"{name} must have {other_name}'s dtype {other.dtype}, got {x.dtype}")
    check_device(name, x, other_name, other)


def check_device(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """``x`` lies on the device of ``other``."""
    if x.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}, got {x.device}")


def check_integers(name: str, x: Tensor) -> None:
    """``x`` is an integer tensor (bool is not one)."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be an integer tensor, got {type(x).__name__}")
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
        raise ValueError(f"{name} must be an integer tensor, got {x.dtype}")
