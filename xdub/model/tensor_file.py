"""Reading of weight files, with an error of one line for a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xdub.errors import UserError


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file. Raise UserError if the file is truncated or of another kind."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); copy or export it again"
        ) from error
