"""All open models of the registry."""

from __future__ import annotations

from xdub.errors import UserError
from xdub.perception.open_models.dubbing import DUBBING
from xdub.perception.open_models.entry import OpenModel
from xdub.perception.open_models.wan import WAN

OPEN_MODELS: tuple[OpenModel, ...] = (*WAN, *DUBBING)
"""All registered models of several files."""


def open_model(role: str) -> OpenModel:
    """Return the entry of a role. Raise UserError with the valid roles if there is none."""
    for model in OPEN_MODELS:
        if model.role == role:
            return model
    raise UserError(f"no open model {role!r}; valid names: {', '.join(m.role for m in OPEN_MODELS)}")
