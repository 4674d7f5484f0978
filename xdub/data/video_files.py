"""Search for video files in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdub.errors import UserError
from xdub.files.folders import find_files, why_unreadable

SUFFIXES = tuple(
    ".mp4 .mov .m4v .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .vob .mxf "
    ".flv .f4v .wmv .asf .ogv .3gp .3g2".split()
)
"""Suffixes of the video files that are searched in folders."""


def find_videos(sources: Sequence[str | Path]) -> list[Path]:
    """List the files, and below the folders the video files and the entries that cannot be read, in order of names."""
    videos: list[Path] = []
    for source in map(Path, sources):
        if (reason := why_unreadable(source)) is not None:
            raise UserError(f"{source}: {reason}")
        if not source.is_dir():
            videos.append(source)
            continue
        files, unreadable = find_files(source, is_video)
        if not files and not unreadable:
            raise UserError(f"{source}: holds no video files ({', '.join(SUFFIXES)})")
        videos += sorted([*files, *unreadable])
    if not videos:
        raise UserError("no source was given: name video files, or folders of them")
    return videos


def is_video(name: str) -> bool:
    """Return whether a file name has a suffix of `SUFFIXES`."""
    return name.lower().endswith(SUFFIXES)
