"""Search for the files of a Wan in a folder of any layout."""

from __future__ import annotations

from pathlib import Path

from xdub.errors import UserError
from xdub.files.tensor_headers import read_shapes
from xdub.files.weight_folder import INDEX, WeightFolder, indexed_files
from xdub.perception.open_models.wan_names import original_name

ADDITIONS = "additions.safetensors"
"""File of the tensors that diffusers' class does not have, under their original names."""


def find_wan(path: Path) -> WeightFolder | None:
    """Return the weights of a Wan in a file or folder; None if there is none.

    A pipeline keeps them below ``transformer``. Raise UserError for a damaged file, and for a folder with several.
    """
    if path.is_file():
        return WeightFolder(path, (path,)) if path.suffix == ".safetensors" and _is_wan(path) else None
    if (path / "transformer").is_dir():
        path = path / "transformer"
    additions = (path / ADDITIONS,) if (path / ADDITIONS).is_file() else ()
    indices = sorted(path.glob(f"*{INDEX}"))
    for index in indices:
        files = indexed_files(index)
        if _is_wan(*files):
            return WeightFolder(path, files + additions)
    candidates = [
        file for file in sorted(path.glob("*.safetensors")) if file.name != ADDITIONS and _is_wan(file)
    ]
    if len(candidates) > 1:
        names = ", ".join(file.name for file in candidates)
        raise UserError(f"{path}: holds several networks ({names}); name one of these files")
    return WeightFolder(path, (candidates[0], *additions)) if candidates else None


def _is_wan(*files: Path) -> bool:
    names = {original_name(name) for file in files for name in read_shapes(file)}
    return {"patch_embedding.weight", "head.head.weight"} <= names
