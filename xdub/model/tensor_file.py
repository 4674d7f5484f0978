"""Weights on disk, with one clear line where they cannot be read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xdub.errors import UserError


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. UserError if it is truncated or something else."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); copy or export it again"
        ) from error
