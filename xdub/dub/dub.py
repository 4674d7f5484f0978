"""Dubbing of a video with new speech (paper 3.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from xdub.data.clip_checks import MIN_SOUND
from xdub.data.sound import surrounded
from xdub.dub.editing import Editing, editing_of
from xdub.dub.face_runs import find_runs
from xdub.dub.frame_stream import Dubber, OnCrops
from xdub.dub.segments import joining_of, mirror_index
from xdub.dub.source import mirrored_frames
from xdub.dub.window_sampler import WindowSampler, bands_of
from xdub.errors import UserError
from xdub.files.atomic import check_output
from xdub.geometry import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from xdub.media import probe, read_audio, read_video, write_video
from xdub.media.writer import SUFFIXES
from xdub.model.bundle import Bundle, load_bundle
from xdub.perception.faces import FaceTrack, FaceTracker
from xdub.precision import open_device
from xdub.progress import Report, ignore

SOUND_RATE = 48_000
"""Sample rate of the written sound, Hz."""

CRF = 16
"""Quality of the written video, see `xdub.media.writer`."""


@dataclass(frozen=True, kw_only=True)
class DubReport:
    """Result of a dub in numbers."""

    frames: int
    """Frames written, 25 a second."""
    dubbed: int
    """Frames with a face, which were dubbed."""
    mirrored: bool
    """True if the video was shorter than the speech, so it was played back and forth."""
    seconds: dict[str, float]
    """Seconds of each step: load, track, dub."""


def dub_video(
    video: str | Path,
    audio: str | Path,
    out: str | Path,
    *,
    model: str | Path | Bundle = "tiny",
    settings: Sequence[str] = (),
    seed: int = 0,
    use: Literal["editor", "generator"] = "editor",
    device: str | None = None,
    on_progress: Report | None = None,
    on_crops: OnCrops | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> DubReport:
    """Write ``out``: the video with lips that follow the speech, 25 frames a second, at the video's own size.

    The speech decides the length, ``round(25 seconds)`` frames: a longer video is cut, a shorter video is played back
    and forth. Frames without a face are unchanged; in the other frames only the lower face changes.

    Args:
        video: any video; the largest, most central face is dubbed.
        audio: any audio file, or a video with sound.
        model: "tiny" (shipped), a model folder, or a loaded bundle.
        settings: changes of the model folder's recipe, such as ``weights=DIR`` after its networks have moved.
        seed: seed of the noise.
        use: network that dubs. The generator, with masks and one reference frame, is for comparison.
        on_progress: called with the frames of each pass: the search for faces first, the writing second.
        on_crops: called with the model's own pictures before they are pasted back, for measuring.
        on_warning: called before the work with a line about silent speech, with which the mouth stays closed.

    Raises:
        UserError: a file is missing, of another kind, or holds no frame, sound or face; ``out`` cannot be written. In
            that case no file remains.
    """
    clock = _Clock()
    _check_out(Path(out), video, audio)
    speech = read_audio(audio, SAMPLE_RATE)
    if on_warning is not None and speech.std() < MIN_SOUND:
        on_warning(f"{audio}: its sound is silent, so the mouth will stay closed")
    length = max(1, round(len(speech) / SAMPLES_PER_FRAME))
    # The header may state any duration, so only the display relies on it.
    to_search = min(length, max(1, round(probe(video).duration * FPS)))
    bundle = (
        model
        if isinstance(model, Bundle)
        else load_bundle(model, open_device(device), generator=use == "generator", settings=settings)
    )
    dubber = build_dubber(bundle, use, speech, seed, on_crops)
    clock.lap("load")

    report = on_progress or ignore
    track = track_face(video, length, on_frame=lambda n: report(n, max(n, to_search), "frames searched"))
    runs = find_runs(track, mirror_index(len(track), length), bundle.recipe.video)
    if not runs:
        raise UserError(f"{video}: no face found in its {len(track)} frames; use a video that shows a face")
    clock.lap("track")

    def counted() -> Iterator[np.ndarray]:
        source = mirrored_frames(video, len(track), length)
        for n, frame in enumerate(dubber.frames(source, runs), start=1):
            yield frame
            report(n, length, "frames written")

    sound = read_audio(audio, SOUND_RATE)
    frames = write_video(out, counted(), fps=FPS, audio=sound, audio_rate=SOUND_RATE, crf=CRF)
    clock.lap("dub")
    return DubReport(
        frames=frames,
        dubbed=sum(len(run) for run in runs),
        mirrored=len(track) < length,
        seconds=clock.seconds,
    )


def track_face(
    video: str | Path, max_frames: int, on_frame: Callable[[int], None] | None = None
) -> FaceTrack:
    """Track the face in the video's first frames at 25 a second."""

    def counted() -> Iterator[np.ndarray]:
        for n, frame in enumerate(read_video(video, fps=FPS, max_frames=max_frames), start=1):
            yield frame
            if on_frame is not None:
                on_frame(n)

    with FaceTracker() as tracker:
        return tracker.track(counted())


def build_dubber(
    bundle: Bundle, use: str, speech: np.ndarray, seed: int, on_crops: OnCrops | None = None
) -> Dubber:
    """Return the dubber of a bundle for a speech [N] at 16 kHz; ``use`` is "editor" or "generator"."""
    recipe = bundle.recipe
    if use not in ("editor", "generator"):
        raise UserError(f"use={use!r}: choose editor or generator")
    if use == "generator":
        if bundle.generator is None:
            raise UserError(f"{bundle.path} holds no generator; use the editor")
        backbone, settings, bands, editing = bundle.generator, recipe.pairs, (), Editing()
        window = settings.segment_frames
    else:
        backbone, settings, editing = bundle.editor, recipe.dub, editing_of(recipe)
        window, bands = settings.window, bands_of(recipe, bundle.experts)
    return Dubber(
        sampler=WindowSampler(
            backbone,
            bundle.codec,
            bundle.audio_encoder,
            num_steps=settings.sampler_steps,
            shift=settings.sampler_shift,
            solver=settings.solver,
            bands=bands,
            editing=editing,
            compile_for=1 if settings.compile else None,
        ),
        sound=surrounded(speech),
        size=recipe.video.size,
        window=window,
        motion=settings.motion_frames,
        feather=recipe.pairs.feather_px,
        seed=seed,
        joining=joining_of(settings, bundle.codec.geometry),
        on_crops=on_crops,
    )


def _check_out(out: Path, *inputs: str | Path) -> None:
    """Raise UserError for an output path that `write_video` would refuse only after all the work."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out}: unknown video type {out.suffix!r}; use one of {', '.join(SUFFIXES)}")
    check_output(out)
    for source in map(Path, inputs):
        if out.exists() and source.exists() and out.samefile(source):
            raise UserError(f"{out}: is the input itself, which would be overwritten; choose another name")


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
