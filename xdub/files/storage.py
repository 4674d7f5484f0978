"""Files on a disk or in an object store behind one interface: a `Location` is a pyarrow file system and a path in it.

`locate` opens a plain path, ``file://``, ``s3://``, ``gs://`` or ``hdfs://`` through pyarrow, and every other scheme
through fsspec if its package is installed. Credentials come from the environment (``AWS_*``, ``AWS_ENDPOINT_URL``
included) or from the URI's user info and query. No text of this module prints them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from xdub.files.atomic import atomic_path, sync
from xdub.files.uris import open_uri

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

CHUNK = 8 << 20
"""Bytes that are copied at a time."""


@dataclass(frozen=True, eq=False)
class Location:
    """A file or folder; every method may raise OSError. A location can be pickled, with its credentials."""

    fs: FileSystem = field(repr=False)
    path: str
    """Path in the file system; absolute on a disk."""
    text: str
    """Name for messages: the path as the user wrote it, or a URI without user info and query."""
    local: Path | None
    """Path on a disk, as the user wrote it; None elsewhere."""

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and (self.path, self.full) == (other.path, other.full)

    def __hash__(self) -> int:
        return hash(self.path)

    def __truediv__(self, name: str) -> Location:
        """Return a file or folder below this one; ``name`` may have several parts."""
        check_name(name)
        local = None if self.local is None else self.local / name
        text = f"{self.text.rstrip('/')}/{name}" if local is None else str(local)
        return Location(self.fs, f"{self.path.rstrip('/')}/{name}", text, local)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> Location:
        """Folder that holds the file or folder."""
        local = None if self.local is None else self.local.parent
        text = str(PurePosixPath(self.path).parent) if local is None else str(local)
        if local is None:
            text = self.text.rstrip("/").rpartition("/")[0]
        return Location(self.fs, str(PurePosixPath(self.path).parent), text, local)

    @property
    def full(self) -> str:
        """Name that does not depend on the working directory: the real path on a disk, else the URI's text."""
        return self.text if self.local is None else str(self.local.resolve())

    def info(self) -> FileInfo:
        """Return pyarrow's record of type, size and time of change."""
        return self.fs.get_file_info([self.path])[0]

    def exists(self) -> bool:
        """Return whether there is a file or a folder."""
        from pyarrow.fs import FileType

        return self.info().type != FileType.NotFound

    def is_file(self) -> bool:
        """Return whether there is a file."""
        return self.info().is_file

    def size(self) -> int:
        """Return the bytes of a file. Raise FileNotFoundError without a file."""
        info = self.info()
        if not info.is_file:
            raise FileNotFoundError(f"{self}: no such file")
        return info.size

    def open(self) -> NativeFile:
        """Open a file for random reads."""
        return self.fs.open_input_file(self.path)

    def read_bytes(self) -> bytes:
        """Return the content of a small file."""
        with self.fs.open_input_stream(self.path) as file:
            return file.read()

    def write_bytes(self, content: bytes | memoryview) -> None:
        """Replace a file: by a rename on a disk, by one upload elsewhere. A reader never sees a part of the content.

        On a disk the content survives a power cut once the method returns. Raise UserError if the disk is full.
        """
        if self.local is not None:
            self.local.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.local) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.flush()
                sync(file.fileno())
            return
        with self._upload() as out:
            out.write(content)

    def upload(self, source: Path) -> None:
        """Replace the file by a copy of a file on a disk, as `write_bytes` does."""
        if self.local is not None:
            self.local.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.local) as temporary:
                shutil.copyfile(source, temporary)
            return
        with source.open("rb") as file, self._upload() as out:
            while piece := file.read(CHUNK):
                out.write(piece)

    def download(self, target: Path) -> None:
        """Copy the file to a disk."""
        with self.fs.open_input_stream(self.path) as file, target.open("wb") as out:
            while piece := file.read(CHUNK):
                out.write(piece)

    def make_folder(self) -> None:
        """Create a folder on a disk; an object store has none."""
        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)

    def delete(self) -> None:
        """Remove a file, if there is one."""
        if self.local is not None:
            self.local.unlink(missing_ok=True)
            return
        try:
            self.fs.delete_file(self.path)
        except FileNotFoundError:
            return

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file directly in the folder by name, sorted, from one listing.

        A missing folder is empty. Links are left out, because they may lead out of the folder.
        """
        if self.local is not None:
            try:
                with os.scandir(self.local) as listing:
                    files = [entry for entry in listing if entry.is_file(follow_symlinks=False)]
                    return {entry.name: entry.stat().st_size for entry in _by_name(files)}
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return {info.base_name: info.size for info in self._listing() if info.is_file}

    def walk(self) -> Iterator[tuple[Location, int, int]]:
        """Yield (file, bytes, time of change in ns) of all files below the folder, folder by folder, sorted by name.

        Names that begin with a dot and links are skipped; so are names with a backslash, with a note. Only the entries
        of one folder are in memory at a time.
        """
        folders: list[Location] = [self]
        while folders:
            folder = folders.pop()
            inside: list[Location] = []
            for name, is_file, size, time_ns in folder._entries():
                if name.startswith("."):
                    continue
                if not safe_name(name):
                    print(
                        f"{folder}: skipping {name!r}: names with a backslash are not read", file=sys.stderr
                    )
                    continue
                if is_file:
                    yield folder / name, size, time_ns
                else:
                    inside.append(folder / name)
            folders.extend(reversed(inside))

    def _entries(self) -> Iterator[tuple[str, bool, int, int]]:
        """Yield (name, whether it is a file, bytes, time in ns) of the files and folders directly in the folder."""
        if self.local is None:
            for info in self._listing():
                yield info.base_name, info.is_file, info.size or 0, info.mtime_ns or 0
            return
        with os.scandir(self.local) as listing:
            entries = _by_name(list(listing))
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                stat = entry.stat()
                yield entry.name, True, stat.st_size, stat.st_mtime_ns
            elif entry.is_dir(follow_symlinks=False):
                yield entry.name, False, 0, 0

    def _listing(self) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        infos = self.fs.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(infos, key=lambda info: info.base_name)

    @contextmanager
    def _upload(self) -> Iterator[Any]:
        """Yield an open file of an object store; if the block fails, remove the incomplete file."""
        try:
            out = self.fs.open_output_stream(self.path)
        # Some file systems of fsspec need the folder first; an object store has no folders.
        except FileNotFoundError:
            self.fs.create_dir(self.path.rpartition("/")[0], recursive=True)
            out = self.fs.open_output_stream(self.path)
        try:
            yield out
        except BaseException:
            # Closing completes the upload, whatever was written.
            out.close()
            self.delete()
            raise
        out.close()


def locate(address: str | Path | Location) -> Location:
    """Return the location of a path or URI. Raise UserError for a scheme that no installed package opens.

    A text without ``://`` is a path, whatever characters it has.
    """
    from pyarrow.fs import LocalFileSystem

    if isinstance(address, Location):
        return address
    if isinstance(address, Path) or "://" not in address:
        local = Path(address)
    elif address.startswith("file://"):
        local = Path(unquote(urlsplit(address).path))
    else:
        fs, path = open_uri(address)
        scheme = address.partition("://")[0]
        return Location(fs, path.rstrip("/"), f"{scheme}://{path.strip('/')}", None)
    return Location(LocalFileSystem(), os.path.abspath(local.expanduser()), str(local), local)


def is_uri(target: str | Path | Location) -> bool:
    """Return whether a text is a URI of another file system than the local one."""
    return isinstance(target, str) and "://" in target and not target.startswith("file://")


def address(target: str | Path) -> str:
    """Return a text that names the same file or folder for a process in another working directory."""
    return str(target) if is_uri(target) else str((locate(target).local or Path(target)).resolve())


def check_name(name: str) -> None:
    """Raise ValueError unless a relative name stays below its folder."""
    if not safe_name(name):
        raise ValueError(f"{name!r} leads out of its folder")


def safe_name(name: str) -> bool:
    """Return whether a relative name stays below its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _by_name(entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    return sorted(entries, key=lambda entry: entry.name)
