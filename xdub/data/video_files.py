"""Search for the video files of a command, on disks and in object stores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdub.data.remote_sources import RemoteSource, list_files
from xdub.errors import UserError
from xdub.files.folders import find_files, why_unreadable
from xdub.files.storage import is_uri, locate

SUFFIXES = tuple(
    ".mp4 .mov .m4v .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .vob .mxf "
    ".flv .f4v .wmv .asf .ogv .3gp .3g2".split()
)
"""Suffixes of the video files that are searched in folders."""


def find_videos(sources: Sequence[str | Path]) -> list[Path | RemoteSource]:
    """List the files, and below the folders the video files and the entries that cannot be read, in order of names."""
    videos: list[Path | RemoteSource] = []
    for source in sources:
        if is_uri(source):
            files = list(list_files(str(source), is_video))
            if not files:
                raise UserError(f"{locate(source)}: holds no video files ({', '.join(SUFFIXES)})")
            videos += [RemoteSource(file.location, (file,)) for file in files]
        else:
            videos += _find_local_videos(locate(source).local or Path(source))
    if not videos:
        raise UserError("no source was given: name video files, or folders of them")
    return videos


def _find_local_videos(source: Path) -> list[Path]:
    if (reason := why_unreadable(source)) is not None:
        raise UserError(f"{source}: {reason}")
    if not source.is_dir():
        return [source]
    files, unreadable = find_files(source, is_video)
    if not files and not unreadable:
        raise UserError(f"{source}: holds no video files ({', '.join(SUFFIXES)})")
    return sorted([*files, *unreadable])


def is_video(name: str) -> bool:
    """Return whether a file name has a suffix of `SUFFIXES`."""
    return name.lower().endswith(SUFFIXES)
