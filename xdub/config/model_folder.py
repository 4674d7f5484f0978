"""Names of models: the shipped model has a name, every other model is a folder."""

from __future__ import annotations

SHIPPED_MODEL = "tiny"
"""Name of the model in the package."""


class ModelFolder:
    """Mark of an option whose value is `SHIPPED_MODEL` or a folder: ``Annotated[str, typer.Option(...), ModelFolder]``.

    `xdub submit` reads the mark: a folder must exist on the cluster, the name is valid everywhere.
    """
