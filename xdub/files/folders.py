"""Search of folders for files. Links are followed once, hidden names are skipped, unreadable entries are returned."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

SKIPPED = {"$RECYCLE.BIN", "System Volume Information", "@eaDir"}
"""Names of folders that are skipped like hidden ones: of deleted files, and of a server's previews."""


def find_files(folder: Path, matches: Callable[[str], bool]) -> tuple[list[Path], list[Path]]:
    """Return the files below a folder whose names match, and the entries that cannot be read; both are sorted.

    Links to files and folders are followed. A file or folder that is reached several ways is listed once, by a path
    without a link if there is one. Names that begin with a dot are skipped below ``folder``. Entries that cannot be
    read are broken links and folders that cannot be listed.
    """
    files: dict[str, Path] = {}
    links_to_files: list[Path] = []
    unreadable: list[Path] = []
    visited: set[str] = set()
    folders, links_to_folders = [folder], deque[Path]()
    while folders or links_to_folders:
        # A link comes after all folders, because it may lead to one of them.
        path = folders.pop() if folders else links_to_folders.popleft()
        real = os.path.realpath(path)
        if real in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            unreadable.append(path)
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SKIPPED:
                continue
            inside = path / entry.name
            if not entry.is_symlink():
                if entry.is_dir():
                    folders.append(inside)
                elif entry.is_file() and matches(entry.name):
                    files[os.path.join(real, entry.name)] = inside
            elif not inside.exists():
                unreadable.append(inside)
            elif inside.is_file():
                links_to_files += [inside] if matches(entry.name) else []
            elif inside.is_dir() and not _contains(os.path.realpath(inside), real):
                links_to_folders.append(inside)
    for inside in links_to_files:
        files.setdefault(os.path.realpath(inside), inside)
    return sorted(files.values()), sorted(unreadable)


def why_unreadable(path: Path) -> str | None:
    """Return why a file cannot be read or a folder cannot be listed, None if it can."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which does not exist"
    if not path.exists():
        return "no such file or folder"
    if not path.is_dir() and not path.is_file():
        return "neither a file nor a folder"
    try:
        if path.is_dir():
            os.scandir(path).close()
        else:
            path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _contains(outer: str, inner: str) -> bool:
    """Return whether the folder ``inner`` is ``outer`` or lies below it; both are real paths."""
    return os.path.commonpath([outer, inner]) == outer
