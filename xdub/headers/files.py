"""Headers of files with weights: names and shapes of tensors without their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdub.errors import UserError, error_reason
from xdub.files.weight_folder import INDEX

Shapes = dict[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""
TRIAL = "`xdub weights mini --like RECIPE` writes random ones for a trial"
"""End of the fix for a network that has to be got from elsewhere."""


class Fault(UserError):
    """A network that cannot be used: what is wrong, and the fix, which together are the message."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem, self.fix = problem, fix


@dataclass(frozen=True, kw_only=True)
class Header:
    """Content of a file of tensors, without the values."""

    shapes: Shapes
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path, fix: str) -> Header:
    """Read the header of a safetensors file, or of torch's, of which only tensors are unpickled.

    Raise Fault with ``fix`` for a file that is missing, cut short, or of another kind.
    """
    if not path.is_file():
        raise Fault(f"{path}: there is no such file", fix)
    header = _safetensors_header(path)
    if header is not None:
        return header
    if path.suffix == ".safetensors":
        raise Fault(f"{path}: is not a whole safetensors file", fix)
    return Header(shapes=_torch_shapes(path, fix))


def read_config(folder: Path, name: str, fix: str) -> dict[str, Any]:
    """Read a JSON file of a model's folder. Raise Fault with ``fix`` if it is missing or damaged."""
    if not folder.is_dir():
        raise Fault(f"{folder}: there is no such folder", fix)
    path = folder / name
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Fault(f"{folder}: the folder has no {name}", fix) from error
    except (OSError, ValueError) as error:
        raise Fault(f"{path}: cannot be read as JSON ({error})", fix) from error
    if not isinstance(values, dict):
        raise Fault(f"{path}: is not the configuration of a model", fix)
    return values


def read_weights(folder: Path, stem: str, fix: str) -> Shapes:
    """Return the shapes of all tensors of a model's folder, whose files are ``stem.safetensors``, several or ``.bin``.

    Raise Fault with ``fix`` if a file is missing or cut short.
    """
    index = folder / f"{stem}{INDEX}"
    if index.is_file():
        parts = read_config(folder, index.name, fix).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
            raise Fault(f"{index}: does not list the files of a model", fix)
        names = sorted(set(parts.values()))
    else:
        names = next(
            (
                [name]
                for name in (f"{stem}.safetensors", f"{stem}.bin", "pytorch_model.bin")
                if (folder / name).is_file()
            ),
            [],
        )
    if not names:
        raise Fault(f"{folder}: the folder has no {stem}.safetensors", fix)
    shapes: Shapes = {}
    for name in names:
        shapes |= read_header(folder / name, fix).shapes
    return shapes


def model_name(config: Mapping[str, Any]) -> str:
    """Return the class or kind of model that a configuration names."""
    return str(config.get("_class_name") or config.get("model_type") or "no named model")


def _safetensors_header(path: Path) -> Header | None:
    """Return the header of a safetensors file; None for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
            return Header(shapes=shapes, metadata=file.metadata() or {})
    except (SafetensorError, OSError):
        return None


def _torch_shapes(path: Path, fix: str) -> Shapes:
    """Return the shapes of a tensor or state dict that torch saved.

    The values stay on the disk where the format allows it. A single tensor has the name "".
    """
    import torch

    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            # Files from before torch 1.6 cannot be mapped.
            state = torch.load(path, map_location="cpu", weights_only=True)
    # A file of another kind may raise nearly any error.
    except Exception as error:
        raise Fault(f"{path}: cannot be read as weights ({error_reason(error, 120)})", fix) from error
    if isinstance(state, torch.Tensor):
        return {"": tuple(state.shape)}
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Fault(f"{path}: is not a state dict of tensors", fix)
    return {str(name): tuple(value.shape) for name, value in state.items()}
