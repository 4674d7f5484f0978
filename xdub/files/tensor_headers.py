"""Names and shapes of the tensors in a safetensors file, read without torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from xdub.errors import UserError


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all tensors of a safetensors file, from its header. Raise UserError for another file."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); copy or export it again"
        ) from error
