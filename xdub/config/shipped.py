"""Models and small networks that ship with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

FOLDER = "weights_tiny"
"""Name of the package's folder of weights."""
SHIPPED_MODEL = "tiny"
"""Name of the model in the package."""


class ModelFolder:
    """Mark of an option whose value is `SHIPPED_MODEL` or a folder: ``Annotated[str, typer.Option(...), ModelFolder]``.

    `xdub submit` reads the mark: a folder must exist on the cluster, the name is valid everywhere.
    """


def shipped_weights(name: str = "") -> Path:
    """Return the path of a shipped file, or of the folder of all of them."""
    return Path(str(resources.files("xdub") / FOLDER / name))
