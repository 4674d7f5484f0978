"""Open models that weights are, recognised by names and shapes of their tensors."""

from __future__ import annotations

from pathlib import Path

from xdub.files.tensors import signature
from xdub.perception.open_models.entry import OpenModel
from xdub.perception.open_models.table import OPEN_MODELS
from xdub.perception.open_models.wan_files import find_wan
from xdub.perception.open_models.wan_names import original_name


def recognised_models(path: Path, hint: str | None = None) -> tuple[OpenModel, ...]:
    """Return the open models whose signature the weights at a path have; () for other weights and for a missing path.

    TBDub's teacher and student have the same names and shapes of tensors. The name of the file, or ``hint``, the name
    of a recipe, decides between them, and both are returned where neither does. Only headers are read.

    Raise UserError for a damaged file.
    """
    weights = find_wan(path) if path.exists() else None
    if weights is None:
        return ()
    value = signature({original_name(name): shape for name, shape in weights.shapes.items()})
    models = tuple(model for model in OPEN_MODELS if model.signature == value)
    files = {file.name for file in weights.files}
    for named in (
        tuple(model for model in models if files & set(model.signed)),
        tuple(model for model in models if model.role == hint),
    ):
        if len(named) == 1:
            return named
    return models
