"""Sources in an object store: they are listed folder by folder, and a worker copies one at a time to its disk.

The copy lies in a folder of the source's folder name, because names of clips and speakers contain that name, so a
source has the same clips from an object store as from a disk.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xdub.errors import UserError
from xdub.files.storage import Location, locate
from xdub.files.uris import first_line, without_secrets
from xdub.files.user_folders import private_folder

SCRATCH = "scratch"
"""Folder of copies below the user's private temporary folder; it has one folder for each process."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in an object store, with the facts of its listing."""

    location: Location
    bytes: int
    changed_ns: int
    """Time of the last change, in ns."""


@dataclass(frozen=True)
class RemoteSource:
    """A source in an object store: a file, or a folder with its files."""

    location: Location
    files: tuple[RemoteFile, ...]

    @cached_property
    def name(self) -> str:
        """Name in the ledger: the URI without credentials."""
        return str(self.location)

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """Copy the source to this machine, and remove the copy when the block ends. May raise OSError."""
        with scratch_folder() as folder:
            # A file lies below the name of its folder, the files of a folder below the folder's own name.
            is_file = len(self.files) == 1 and self.files[0].location == self.location
            inside = folder / (self.location.parent.name if is_file else self.location.name or "source")
            inside.mkdir(parents=True)
            for file in self.files:
                file.location.download(inside / file.location.name)
            yield inside / self.location.name if is_file else inside


def list_files(uri: str, matches: Callable[[str], bool]) -> Iterator[RemoteFile]:
    """Yield the file at a URI, or the files below it whose names match, in the order of `Location.walk`.

    Raises:
        UserError: there is no such file or folder, or it cannot be listed.
    """
    location = locate(uri)
    try:
        info = location.info()
        if info.is_file:
            yield RemoteFile(location, info.size, info.mtime_ns or 0)
            return
        if not location.exists():
            raise UserError(f"{location}: no such file or folder")
        for file, size, changed_ns in location.walk():
            if matches(file.name):
                yield RemoteFile(file, size, changed_ns)
    except OSError as error:
        raise UserError(f"{location}: cannot be listed ({without_secrets(uri, first_line(error))})") from None


def group_by_folder(files: Sequence[RemoteFile]) -> list[RemoteSource]:
    """Return one source for each folder that holds some of the files, in the order of the files."""
    folders: dict[Location, list[RemoteFile]] = {}
    for file in files:
        folders.setdefault(file.location.parent, []).append(file)
    return [RemoteSource(folder, tuple(inside)) for folder, inside in folders.items()]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder on this machine's disk, and remove it when the block ends.

    Folders of processes that were killed are removed as well.
    """
    parent = private_folder() / SCRATCH
    parent.mkdir(exist_ok=True)
    # Containers that share a disk have process ids of their own, and other host names.
    prefix = f"{socket.gethostname()}_"
    for leftover in parent.glob(f"{prefix}*"):
        process = leftover.name.removeprefix(prefix).partition("_")[0]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = parent / f"{prefix}{os.getpid()}_{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
