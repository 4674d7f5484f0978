"""Files of a network's weights, read one tensor at a time: memory holds the network and one tensor, never a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from xdub.errors import UserError
from xdub.files.tensor_headers import read_shapes

if TYPE_CHECKING:
    from torch import Tensor

INDEX = ".safetensors.index.json"
"""Ending of the list of a network's files where its weights are in several."""


@dataclass(frozen=True)
class WeightFolder:
    """The safetensors files of one network."""

    path: Path
    """File or folder that a user names, for messages."""
    files: tuple[Path, ...]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors, from the headers. UserError for a damaged file and for a repeated name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            own = read_shapes(file)
            if repeated := shapes.keys() & own.keys():
                raise UserError(f"{self.path}: {min(repeated)} is in two of its files; download it again")
            shapes |= own
        return shapes

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) file by file; a tensor's memory belongs to the caller."""
        for file in self.files:
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118 (no dict)
                    yield name, content.get_tensor(name)


def indexed_files(index: Path) -> tuple[Path, ...]:
    """Return the files that an index lists, all beside it. Raise UserError if one is missing or the list is damaged."""
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        files = tuple(index.parent / str(name) for name in sorted(names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: does not list the files of a network; download it again") from error
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise UserError(f"{index}: its file {file.name} is missing; download it again")
    return files


def check_values(source: object, name: str, value: Tensor) -> None:
    """Raise UserError for a tensor of whole numbers, and for one with a value that is not finite."""
    # The checks before a run import this module, and they read headers without torch.
    import torch

    if not value.is_floating_point():
        raise UserError(f"{source}: {name} has whole numbers ({value.dtype}); name weights of fp32 or bf16")
    # A sum is NaN or infinite if a value is, and needs no second tensor.
    if not value.sum(dtype=torch.float32).isfinite():
        raise UserError(
            f"{source}: {name} has values that are not finite; download the weights or train them again"
        )


def check_fit(
    source: object,
    theirs: Mapping[str, Sequence[int]],
    own: Mapping[str, Sequence[int]],
    optional: frozenset[str] = frozenset(),
) -> None:
    """Raise UserError with the first tensor of ``theirs`` that is left over, of another shape, or missing.

    Args:
        source: file or folder, for the message.
        theirs: name -> shape of the weights, under the network's names.
        own: name -> shape of the network.
        optional: names of the network that the weights need not have.
    """
    wrong = [
        (name, shape) for name, shape in theirs.items() if name in own and tuple(own[name]) != tuple(shape)
    ]
    missing = sorted(own.keys() - theirs.keys() - optional)
    left_over = sorted(theirs.keys() - own.keys())
    faults = [
        f"{name} has shape {tuple(shape)}, the network has {tuple(own[name])}"
        for name, shape in sorted(wrong)
    ]
    faults += [f"{name} is missing" for name in missing]
    faults += [f"{name} is left over" for name in left_over]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{source} does not fit the network: {faults[0]}{more}")
