"""Consent to the licences of published models: shown once, recorded in the user's folder of settings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from xdub.config import Recipe, base_path
from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.user_folders import config_folder
from xdub.model.published import EDITORS
from xdub.model.recognised import recognised_models
from xdub.perception.open_models.entry import Licence
from xdub.perception.open_models.table import open_model
from xdub.perception.open_models.wan_config import CONFIG, read_json_object

VARIABLE = "XDUB_ACCEPT_LICENCE"
"""Environment variable with the names of models, divided by commas, whose licences the user accepts."""


def licence_of(name: str) -> Licence:
    """Return the licence of a published model."""
    return open_model(name).licence


def licence_text(name: str) -> str:
    """Return the licence of a published model as lines for the user."""
    licence = licence_of(name)
    notice = f"\n  {licence.notice}" if licence.notice else ""
    return f"{name}: licence {licence.name}\n  {licence.url}{notice}"


def is_accepted(name: str) -> bool:
    """Return whether the user has accepted the present licence of a model, on this machine or by the environment."""
    if name in [part.strip() for part in os.environ.get(VARIABLE, "").split(",")]:
        return True
    recorded = _records().get(name)
    # Consent to other terms does not count.
    return isinstance(recorded, dict) and recorded.get("licence") == licence_of(name).name


def accept(name: str) -> None:
    """Record the user's consent to the licence of a model."""
    licence = licence_of(name)
    entry = {
        "licence": licence.name,
        "url": licence.url,
        "accepted": datetime.now(UTC).isoformat("T", "seconds"),
    }
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _records() | {name: entry})
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); set {VARIABLE}={name} instead"
        ) from error


def require_licence(name: str) -> None:
    """Raise UserError unless the licence of a published model has been accepted."""
    if is_accepted(name):
        return
    licence = licence_of(name)
    notice = f": {licence.notice}" if licence.notice else ""
    raise UserError(
        f"{name} has the licence {licence.name} ({licence.url}){notice}; read it, then accept it once with "
        f"--accept-licence {name}, or set {VARIABLE}={name}"
    )


def required_licences(recipe: Recipe) -> tuple[str, ...]:
    """Return `weights_licences` of a recipe's open weights; () without any."""
    location = base_path(recipe)
    return () if location is None else weights_licences(Path(location), recipe.name)


def weights_licences(path: Path, hint: str | None = None) -> tuple[str, ...]:
    """Return the published editors whose licence weights have; () for other weights, and for a path that is not here.

    They are recognised by their tensors (`recognised_models`), so a folder under any name has the licence of its
    weights. The export of a phase has none of its own, because its training had consent. Of several names, which have
    the same terms, consent to one is enough.
    """
    folder = path if path.is_dir() else path.parent
    if "recipe" in read_json_object(folder / CONFIG):
        return ()
    names = [editor.name for editor in EDITORS]
    return tuple(model.role for model in recognised_models(path, hint) if model.role in names)


def require_base_licence(recipe: Recipe) -> None:
    """Raise UserError where open weights of a recipe are a published editor's and its licence was not accepted."""
    require_one(required_licences(recipe))


def require_one(names: Sequence[str]) -> None:
    """Raise UserError unless the licence of one of the models was accepted, or there are none."""
    if names and not any(map(is_accepted, names)):
        require_licence(names[0])


def _file() -> Path:
    return config_folder() / "licences.json"


def _records() -> dict[str, object]:
    """Return name -> record of consent; a file that cannot be read holds none."""
    try:
        values = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
