"""Folders of the code that a job imports on the cluster, from a checkout or an installation.

Ray names an uploaded folder by a hash of its files, so changed code is always sent, and unchanged code only once.
Requirements are not sent, because the cluster's image has them.
"""

from __future__ import annotations

import importlib
from pathlib import Path

PACKAGES = ("xdub", "xdub_kernels")
"""Packages that are sent."""
EXCLUDED = ("__pycache__",)
"""Files that are neither sent nor hashed: Python writes them while it imports."""


def package_folders() -> list[Path]:
    """Return the folder of each package, as this process imports it."""
    files = [importlib.import_module(package).__file__ for package in PACKAGES]
    return [Path(file).parent for file in files if file is not None]
