"""Drawn file names, and lists of all files of a folder to compare."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

PIECES = [
    *" '\"?#%:[]{}()&;$*\\\n\t=,~!`|<>@+^-_.",
    "a",
    "B",
    "7",
    "é",
    "ß",
    "漢",
    "字",
    "🎬",
    "\u202e",
    "e\u0301",
]
"""Characters of the names; the separator `/` and NUL cannot occur in a name."""
WORDS = [
    "%2e",
    "%41",
    "%s",
    "{0}",
    "[red]",
    "[b]",
    ":smile:",
    "file:",
    "s3:",
    "http:",
    "..",
    " -- ",
    "?a=1",
    "#x",
    "$HOME",
]
"""Texts that mean something to a parser of addresses, patterns, templates, markup or commands."""
LONGEST = 240
"""Bytes of the long names; suffixes and temporary names must fit into the file system's 255."""
Tree = dict[str, tuple[int, int]]
"""path -> (bytes, time of the last change in ns); (-1, 0) for a folder."""


def draw_names(count: int, seed: int) -> list[str]:
    """Draw different names: every fifth begins with a dash, and every fifth has the largest length."""
    random_ = random.Random(seed)
    names: dict[str, None] = {}
    while len(names) < count:
        number = len(names)
        name = "".join(
            random_.choice(WORDS if random_.random() < 0.2 else PIECES) for _ in range(random_.randint(1, 12))
        )
        if number % 5 == 1:
            name = f"-{name}"
        if number % 5 == 3:
            while len(name.encode()) < LONGEST:
                name += random_.choice(PIECES)
            name = name.encode()[:LONGEST].decode(errors="ignore")
        # A name of dots is another folder, and hidden files are no input.
        if not name.startswith("."):
            names[name] = None
    return list(names)


def listing(root: Path, inside: Path) -> Tree:
    """List everything below ``root`` except what is below ``inside``."""
    entries: Tree = {}
    for folder, folders, files in os.walk(root):
        current = Path(folder)
        folders[:] = [name for name in folders if current / name != inside]
        entries |= {str(current / name): (-1, 0) for name in folders}
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(current / name)
                entries[str(current / name)] = (status.st_size, status.st_mtime_ns)
    return entries


def changes(before: Tree, after: Tree) -> list[str]:
    """Return a line for each file or folder that is new, gone or different."""
    lines = [f"new: {path!r}" for path in after.keys() - before.keys()]
    lines += [f"gone: {path!r}" for path in before.keys() - after.keys()]
    lines += [f"changed: {p!r}" for p in after.keys() & before.keys() if after[p] != before[p]]
    return sorted(lines)
