"""An embedded prompt: the rows of a text encoder, computed once, so that training loads no text encoder.

    prompt.safetensors: tensor `rows` [S, D], metadata `padding` (a number) and `prompt` (the text)

Wan pads every prompt to 512 rows with zeros and does not mask them, so the zero rows take part in the attention. All of
them are equal, so a prompt is stored as its S real rows and the number of zero rows behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xdub.errors import UserError
from xdub.files.atomic import atomic_path
from xdub.files.tensors import read_metadata, read_tensors, write_tensors
from xdub.perception.network_files import check_finite, read_state_dict

ROWS = "rows"
"""Tensor of a prompt's file."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The embedding of one prompt."""

    rows: Tensor
    """[S, D], rows of the real tokens."""
    padding: int
    """Number of zero rows behind the real ones."""
    text: str | None = None
    """The prompt in words; None where the file does not record it."""

    @property
    def width(self) -> int:
        """Channels of a row, which are the ``model.text_dim`` of a recipe."""
        return self.rows.shape[1]

    def padded(self) -> Tensor:
        """Return all rows [S + padding, D], the zero rows included."""
        return torch.cat((self.rows, self.rows.new_zeros(self.padding, self.width)))


def from_padded(embedding: Tensor, text: str | None = None) -> Prompt:
    """Return the prompt of an embedding [N, D] or [1, N, D] whose trailing zero rows are padding.

    At least one row is kept. Raise ValueError for another shape.
    """
    if embedding.ndim == 3 and embedding.shape[0] == 1:
        embedding = embedding[0]
    if embedding.ndim != 2 or embedding.numel() == 0 or not embedding.is_floating_point():
        raise ValueError(f"an embedding is [N, D] or [1, N, D], not {list(embedding.shape)}")
    real = embedding.ne(0).any(1).nonzero()
    length = int(real[-1]) + 1 if len(real) else 1
    return Prompt(rows=embedding[:length].detach().clone(), padding=embedding.shape[0] - length, text=text)


def write_prompt(prompt: Prompt, path: str | Path) -> None:
    """Write a prompt's file, whole or not at all."""
    metadata = {"padding": str(prompt.padding)} | ({} if prompt.text is None else {"prompt": prompt.text})
    with atomic_path(path) as temporary:
        write_tensors({ROWS: prompt.rows.detach().cpu().contiguous()}, temporary, metadata)


def read_prompt(path: str | Path) -> Prompt:
    """Read a file of `write_prompt`, or an embedding [1, N, D] that torch saved (TBDub's ``null_prompt_emb.pt``).

    The rows have the number format of the file. Raise UserError for a file that holds no prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such prompt; `xdub weights prompt --umt5 DIR --out {path}` writes one"
        )
    if path.suffix in (".pt", ".pth"):
        return _saved_by_torch(path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    rows, padding = tensors.get(ROWS), metadata.get("padding", "")
    if rows is None or rows.ndim != 2 or not rows.is_floating_point() or not padding.isdecimal():
        raise UserError(f"{path}: is not a prompt (tensor `rows` [S, D], metadata `padding`); {_FIX}")
    check_finite(path, [(ROWS, rows)])
    return Prompt(rows=rows, padding=int(padding), text=metadata.get("prompt"))


def _saved_by_torch(path: Path) -> Prompt:
    """Read an embedding that torch saved as a tensor or as the only tensor of a mapping; nothing else is unpickled."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A file of another kind may raise nearly any error.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as an embedding; {_FIX}") from error
    if not isinstance(content, Tensor):
        tensors = list(read_state_dict(path, "an embedding").values())
        content = tensors[0] if len(tensors) == 1 else torch.zeros(0)
    check_finite(path, [("the embedding", content)])
    try:
        return from_padded(content)
    except ValueError as error:
        raise UserError(f"{path}: is not the embedding of a prompt ({error}); {_FIX}") from error


_FIX = "write it again with `xdub weights prompt`"
"""End of the messages about a wrong file."""
