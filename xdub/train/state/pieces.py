"""Training state in files that any world size and any ZeRO stage can read.

    step00000100/rank00000.safetensors    rank 0's share: pieces of named parameters
        master/blocks.0.ffn.0.weight      fp32 [n]; likewise exp_avg/..., exp_avg_sq/..., ema/...
        metadata "starts"                 JSON {name: index of the piece in the flattened parameter}

A reader copies the parts that overlap with its own pieces from all files that hold them. Another world size needs no
conversion, nothing is pickled, and at the same world size and stage every rank reads its own file only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xdub.errors import UserError
from xdub.files.tensors import write_tensors

RANK_FILE = "rank{rank:05d}.safetensors"
"""Name of a rank's file."""


def write_shard(
    folder: Path, rank: int, pieces: Mapping[str, Mapping[str, Tensor]], starts: Mapping[str, int]
) -> None:
    """Write a rank's file.

    ``pieces``: kind -> name -> flat tensor [n]; ``starts``: name -> its index in the flattened parameter.
    """
    tensors = {
        f"{kind}/{name}": value.detach().cpu().contiguous()
        for kind, values in pieces.items()
        for name, value in values.items()
    }
    write_tensors(tensors, folder / RANK_FILE.format(rank=rank), {"starts": json.dumps(dict(starts))})


class ShardedState:
    """Reader of all rank files of a checkpoint, piece by piece."""

    def __init__(self, folder: Path) -> None:
        """Open the files in ``folder``. Raise UserError if there is none, or if one cannot be read."""
        self.folder = folder
        self._files = []
        self._pieces: dict[str, list[tuple[int, int, int]]] = {}
        """tensor name -> (start, length, file number)"""
        for number, path in enumerate(sorted(folder.glob("rank?????.safetensors"))):
            try:
                file = safe_open(path, framework="pt")
                starts = json.loads(file.metadata()["starts"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: cannot be read ({error}); remove {folder} and resume") from error
            self._files.append(file)
            for key in file.keys():
                length = file.get_slice(key).get_shape()[0]
                start = starts[key.split("/", 1)[1]]
                self._pieces.setdefault(key, []).append((start, length, number))
        if not self._files:
            raise UserError(f"{folder} holds no training state")

    def has(self, kind: str) -> bool:
        """Return whether tensors of this kind were saved."""
        return any(key.startswith(f"{kind}/") for key in self._pieces)

    def fill(self, target: Tensor, kind: str, name: str, start: int) -> None:
        """Copy elements start ... start + n of a parameter to ``target`` [n]. Raise UserError if any was not saved."""
        missing, end = target.numel(), start + target.numel()
        for first, length, number in self._pieces.get(f"{kind}/{name}", ()):
            low, high = max(start, first), min(end, first + length)
            if low < high:
                part = self._files[number].get_slice(f"{kind}/{name}")[low - first : high - first]
                with torch.no_grad():
                    target[low - start : high - start].copy_(part)
                missing -= high - low
        if missing:
            raise UserError(
                f"{self.folder}: {missing} of {target.numel()} values of {kind}/{name} are missing"
            )
