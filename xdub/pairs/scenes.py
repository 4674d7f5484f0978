"""Where a user's own pairs lie on disk, and whether two files can be one pair at all.

    SRC/<scene>/original.mp4   V: an avatar speaks A, moving by M
    SRC/<scene>/dubbed.mp4     V': the same avatar, pose, camera and light; its lips speak A'
    SRC/<scene>/audio.wav      A, where the original has no sound track of its own

SRC may be one scene, or hold scenes at any depth; other containers (.mov, .mkv, .avi, ...) do as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.data.prepare import SUFFIXES
from xdub.errors import UserError
from xdub.media import VideoInfo, probe

ORIGINAL, DUBBED, AUDIO = "original", "dubbed", "audio.wav"
LAYOUT = f"SRC/<scene>/{ORIGINAL}.mp4 and {DUBBED}.mp4, with {AUDIO} if the original is silent"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The files of one pair; ``audio`` is None where the original's own sound track is meant."""

    original: Path
    dubbed: Path
    audio: Path | None


def find_scenes(sources: Sequence[str | Path]) -> list[Path]:
    """Folders with an original or a dubbed video in them, in order of their names, each once.

    UserError: a source is no folder, or there is not one scene in it.
    """
    folders: list[Path] = []
    for source in map(Path, sources):
        if not source.is_dir():
            raise UserError(f"{source}: no such folder; pairs to import lie as {LAYOUT}")
        inside = sorted({path.parent for path in source.rglob("*") if _named(path, ORIGINAL, DUBBED)})
        if not inside:
            raise UserError(f"{source}: holds no {ORIGINAL}.mp4; pairs to import lie as {LAYOUT}")
        folders += inside
    return list(dict.fromkeys(folders))


def open_scene(folder: Path) -> Scene:
    """The scene in a folder. UserError: a file is missing, is there twice, or the two videos are no twins in size,
    rate and length.
    """
    original, dubbed = (_only(folder, stem) for stem in (ORIGINAL, DUBBED))
    audio = folder / AUDIO
    one, other = probe(original), probe(dubbed)
    if not audio.is_file() and not one.has_audio:
        raise UserError(f"{folder}: {original.name} has no sound and there is no {AUDIO}; add V's speech")
    for what, values in (
        ("size", [f"{info.width}x{info.height}" for info in (one, other)]),
        ("frame rate", [f"{info.fps:.3f}" for info in (one, other)]),
        ("length in frames", [str(info.frames) for info in (one, other)]),
    ):
        if values[0] != values[1]:
            told = f"{original.name} {values[0]}, {dubbed.name} {values[1]}"
            raise UserError(f"{folder}: the videos differ in {what} ({told}); render both from one sequence")
    return Scene(original=original, dubbed=dubbed, audio=audio if audio.is_file() else None)


def check_sound(scene: Scene, info: VideoInfo, seconds: float, slack: float = 0.2) -> None:
    """UserError if ``audio.wav`` cannot be the sound of a video that lasts so long."""
    if scene.audio is not None and abs(seconds - info.duration) > slack:
        raise UserError(
            f"{scene.audio} lasts {seconds:.2f} s, {scene.original.name} {info.duration:.2f} s; give V's own speech"
        )


def _named(path: Path, *stems: str) -> bool:
    return path.stem.lower() in stems and path.suffix.lower() in SUFFIXES and path.is_file()


def _only(folder: Path, stem: str) -> Path:
    found = sorted(path for path in folder.iterdir() if _named(path, stem))
    if not found:
        raise UserError(f"{folder}: {stem}.mp4 is missing; a pair lies as {LAYOUT}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder}: {len(found)} files could be {stem}.mp4 ({names}); keep one")
    return found[0]
