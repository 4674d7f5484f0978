"""Held-out cases on disk: videos and speech as a user would have them, and the truth to measure against.

    CASE/source.mp4  the head with its own (old) speech      CASE/speech.wav   the new speech
    CASE/truth.mp4   the same head rendered with the new     CASE/silence.wav
    CASE/truth.npz   boxes, landmarks, masks, true openings

Identities, poses and speech come from the range of indices that no training set may contain.
"""

from __future__ import annotations

import os
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdub.config import Recipe
from xdub.evaluate.heldout import HeldOutClip
from xdub.files.atomic import atomic_folder
from xdub.geometry import SAMPLE_RATE
from xdub.media import read_frames, write_video
from xdub.progress import Report

if TYPE_CHECKING:
    from xdub.render.clips import RenderedPair

CRF = 10
"""Quality of the videos, near lossless, because the file's compression must not blur the truth."""


def render_cases(
    out: Path,
    recipe: Recipe,
    *,
    seed: int,
    count: int,
    frames: int,
    full_size: int,
    report: Report,
) -> None:
    """Render those of the ``count`` cases OUT/case00 ... that do not exist, each with another identity.

    A case folder appears complete or not at all. ``frames`` is the length of a video, and ``full_size`` its side, px.
    """
    from concurrent.futures import as_completed

    from xdub.render.assets import load_assets
    from xdub.render.processes import renderers

    settings = {
        "frames": frames,
        "full_size": full_size,
        "size": recipe.video.size,
        "crop_scale": recipe.video.crop_scale,
    }
    missing = [number for number in range(count) if not _folder(out, number).is_dir()]
    report(count - len(missing), count, "held-out clips")
    if not missing:
        return
    out.mkdir(parents=True, exist_ok=True)
    # The assets are parsed before the processes start, so that they are parsed once.
    load_assets()
    workers = min(len(missing), len(os.sched_getaffinity(0)))
    with renderers(workers) as pool:
        jobs = [pool.submit(_render_case, _folder(out, number), seed, number, settings) for number in missing]
        for done, job in enumerate(as_completed(jobs), start=count - len(missing) + 1):
            job.result()
            report(done, count, "held-out clips")


def _render_case(folder: Path, seed: int, number: int, settings: dict[str, Any]) -> None:
    from xdub.render.clips import FIRST_HELD_OUT, TAKES, make_clips

    _write_case(folder, next(make_clips(seed, [FIRST_HELD_OUT + number * TAKES], **settings)))


def _folder(out: Path, number: int) -> Path:
    return out / f"case{number:02d}"


def case_folders(out: Path) -> list[Path]:
    """List the finished cases in order."""
    return sorted(out.glob("case[0-9]*"))


def load_case(folder: Path, name: str) -> HeldOutClip:
    """Load a case, with the frames as a player decodes them."""
    with np.load(folder / "truth.npz") as data:
        truth = dict(data)
    shape = truth["mask_shape"]
    mask = np.unpackbits(truth["face_mask"], count=int(np.prod(shape))).astype(bool).reshape(shape)
    return HeldOutClip(
        name=name,
        source=read_frames(folder / "source.mp4"),
        truth=read_frames(folder / "truth.mp4"),
        boxes=truth["boxes"],
        size=int(shape[1]),
        landmarks=truth["landmarks"],
        truth_landmarks=truth["truth_landmarks"],
        face_mask=mask,
        old_opening=truth["old_opening"],
        new_opening=truth["new_opening"],
    )


def _write_case(folder: Path, pair: RenderedPair) -> None:
    old, new = pair.clip.opening, pair.twin.opening
    assert old is not None and new is not None, "the opening of a rendered mouth is known"
    with atomic_folder(folder) as temporary:
        write_video(temporary / "source.mp4", pair.full, audio=pair.clip.audio, crf=CRF)
        write_video(temporary / "truth.mp4", pair.twin_full, audio=pair.twin.audio, crf=CRF)
        write_wav(temporary / "speech.wav", pair.twin.audio)
        write_wav(temporary / "silence.wav", np.zeros_like(pair.twin.audio))
        np.savez(
            temporary / "truth.npz",
            boxes=pair.boxes,
            landmarks=pair.full_landmarks,
            truth_landmarks=pair.twin_landmarks,
            face_mask=np.packbits(pair.clip.face_mask),
            mask_shape=np.array(pair.clip.face_mask.shape),
            old_opening=old,
            new_opening=new,
        )


def write_wav(path: Path, audio: np.ndarray) -> None:
    """Write float samples [N] in [-1, 1] as 16 kHz mono PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
