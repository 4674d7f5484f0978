"""Folders in which third-party weights are looked for, and the one into which they are downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from xdub.errors import UserError
from xdub.files.user_folders import cache_folder, home_cache_folder


def weights_folder() -> Path:
    """Return the folder of downloaded files, ``weights`` in `cache_folder`."""
    return cache_folder() / "weights"


def search_folders() -> list[Path]:
    """Return the folders of weights in the order of search: ``XDUB_WEIGHTS``, the cache, the cache of the home.

    Raise UserError if ``XDUB_WEIGHTS`` names no folder.
    """
    own = os.environ.get("XDUB_WEIGHTS")
    if own and not Path(own).is_dir():
        raise UserError(f"XDUB_WEIGHTS={own}: no such folder")
    folders = [*([Path(own)] if own else []), weights_folder()]
    home = home_cache_folder()
    if home is not None and not os.environ.get("XDG_CACHE_HOME"):
        folders.append(home / "weights")  # a home that cannot be written may still hold weights
    return list(dict.fromkeys(folders))
