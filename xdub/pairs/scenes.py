"""The files of a user's own pairs, and the test whether two videos can be one pair.

    SRC/<scene>/original.mp4   V: an avatar speaks A, moving by M
    SRC/<scene>/dubbed.mp4     V': the same avatar, pose, camera and light; its lips speak A'
    SRC/<scene>/audio.wav      A, if the original has no sound track of its own

SRC may be one scene, or hold scenes at any depth. Other containers (.mov, .mkv, .avi, ...) are accepted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xdub.data.remote_sources import RemoteSource, group_by_folder, list_files
from xdub.data.video_files import SUFFIXES
from xdub.errors import UserError
from xdub.files.folders import find_files, why_unreadable
from xdub.files.storage import is_uri, locate
from xdub.media import count_frames, probe

ORIGINAL, DUBBED, AUDIO = "original", "dubbed", "audio.wav"
"""Stems of the two videos, and name of the sound file."""
STEMS = (AUDIO.removesuffix(".wav"), ORIGINAL, DUBBED)
"""Order of a scene's files, whose hashes identify it."""
LAYOUT = f"SRC/<scene>/{ORIGINAL}.mp4 and {DUBBED}.mp4, with {AUDIO} if the original is silent"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The files of one pair; ``audio`` is None if the original's own sound track is used."""

    original: Path
    dubbed: Path
    audio: Path | None


def find_scenes(sources: Sequence[str | Path]) -> list[Path | RemoteSource]:
    """Find the folders with an original or a dubbed video, in order of their names, each once.

    Raise UserError if a source is not a folder or holds no scene.
    """
    scenes: list[Path | RemoteSource] = []
    for source in sources:
        scenes += (
            _remote_scenes(str(source))
            if is_uri(source)
            else _local_scenes(locate(source).local or Path(source))
        )
    return list({str(scene): scene for scene in scenes}.values())


def _remote_scenes(uri: str) -> list[RemoteSource]:
    files = list(list_files(uri, lambda name: name == AUDIO or _named(Path(name), ORIGINAL, DUBBED)))
    scenes = []
    for scene in group_by_folder(files):
        if any(_named(Path(file.location.name), ORIGINAL, DUBBED) for file in scene.files):
            order = sorted(scene.files, key=lambda file: STEMS.index(Path(file.location.name).stem.lower()))
            scenes.append(replace(scene, files=tuple(order)))
    if not scenes:
        raise UserError(f"{locate(uri)}: holds no {ORIGINAL}.mp4; pairs to import are laid out as {LAYOUT}")
    return scenes


def _local_scenes(source: Path) -> list[Path]:
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; pairs to import are laid out as {LAYOUT}")
    videos, unreadable = find_files(source, lambda name: _named(Path(name), ORIGINAL, DUBBED))
    inside = sorted({path.parent for path in videos})
    for path in unreadable:
        print(f"{path}: skipped: {why_unreadable(path)}", file=sys.stderr)
    if not inside:
        raise UserError(f"{source}: holds no {ORIGINAL}.mp4; pairs to import are laid out as {LAYOUT}")
    return inside


def open_scene(folder: Path) -> Scene:
    """Open the scene in a folder.

    Raise UserError if a file is missing or ambiguous, or if the videos differ in size, frame rate or length.
    """
    original, dubbed = (_only(folder, stem) for stem in (ORIGINAL, DUBBED))
    audio = folder / AUDIO
    infos = probe(original), probe(dubbed)
    if not audio.is_file() and not infos[0].has_audio:
        raise UserError(f"{folder}: {original.name} has no sound and there is no {AUDIO}; add V's speech")
    for property, values in (
        ("size", [f"{info.width}x{info.height}" for info in infos]),
        ("frame rate", [f"{info.fps:.3f}" for info in infos]),
        ("length in frames", [str(count_frames(path)) for path in (original, dubbed)]),
    ):
        if values[0] != values[1]:
            both = f"{original.name} {values[0]}, {dubbed.name} {values[1]}"
            raise UserError(
                f"{folder}: the videos differ in {property} ({both}); render both from one sequence"
            )
    return Scene(original=original, dubbed=dubbed, audio=audio if audio.is_file() else None)


def check_sound(scene: Scene, picture: float, seconds: float, slack: float = 0.2) -> None:
    """Raise UserError if audio.wav lasts ``slack`` seconds longer or shorter than the video.

    ``picture`` and ``seconds`` are the durations of the video and of audio.wav.
    """
    if scene.audio is not None and abs(seconds - picture) > slack:
        raise UserError(
            f"{scene.audio} lasts {seconds:.2f} s, {scene.original.name} {picture:.2f} s; give V's own speech"
        )


def scene_files(folder: str | Path) -> list[Path]:
    """List the files of a scene that exist, in order of their names."""
    files = [path for path in Path(folder).iterdir() if path.name == AUDIO or _named(path, ORIGINAL, DUBBED)]
    return sorted((path for path in files if path.is_file()), key=lambda path: STEMS.index(path.stem.lower()))


def _named(path: Path, *stems: str) -> bool:
    return path.stem.lower() in stems and path.suffix.lower() in SUFFIXES


def _only(folder: Path, stem: str) -> Path:
    files = sorted(path for path in folder.iterdir() if _named(path, stem) and path.is_file())
    if not files:
        raise UserError(f"{folder}: {stem}.mp4 is missing; a pair is laid out as {LAYOUT}")
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(f"{folder}: {len(files)} files could be {stem}.mp4 ({names}); keep one")
    return files[0]
