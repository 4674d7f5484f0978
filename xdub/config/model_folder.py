"""How a user names a model: the shipped one by its name, every other one by its folder."""

from __future__ import annotations

SHIPPED_MODEL = "tiny"


class ModelFolder:
    """Mark of an option that takes `SHIPPED_MODEL` or a folder: ``Annotated[str, typer.Option(...), ModelFolder]``.

    `xdub submit` reads it: a folder has to be the cluster's, the name means the same everywhere.
    """
