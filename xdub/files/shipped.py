"""The small networks that ship with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

FOLDER = "weights_tiny"
"""Name of the package's folder of weights."""


def shipped_weights(name: str = "") -> Path:
    """Return the path of a shipped file, or of the folder of all of them."""
    return Path(str(resources.files("xdub") / FOLDER / name))
