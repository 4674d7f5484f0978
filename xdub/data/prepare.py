"""Preparation of real videos: track a face, crop it steadily, cut the crops into clips with speech (paper B.6).

A video is read twice, frame by frame: once to find the face, once to cut the crops, so memory does not grow with its
length. The ledger has the result of every video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdub.data.clip import Clip, clip_id_of
from xdub.data.clip_checks import (
    MIN_SIDE,
    MIN_SOUND,
    Rejected,
    check_face_size,
    check_motion,
    check_sound,
    frame_levels,
)
from xdub.data.ingest import Ingested, ingest
from xdub.data.ledger import LedgerRow
from xdub.data.transforms import crop, crop_boxes, crop_points
from xdub.errors import UserError
from xdub.geometry import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from xdub.media import probe, read_audio, read_video
from xdub.perception.face_mesh import lip_masks, lower_face_masks
from xdub.perception.faces import FaceTrack, FaceTracker
from xdub.progress import Report

if TYPE_CHECKING:
    from xdub.config import Recipe

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
"""Suffixes of the video files that are searched in folders."""


MAX_STEP, STEP_RATIO, JUMP_FRAMES = 0.5, 3.0, 45
"""A face jumps if it moves by more eye distances in one frame, and by this ratio more than in the frames around it."""


@dataclass(frozen=True)
class Span:
    """Frames [start, end) of one shot with a face in every frame; the arrays have n = end - start rows."""

    start: int
    end: int
    landmarks: np.ndarray
    """[n, 68, 2] px of the picture"""
    boxes: np.ndarray
    """[n, 3], see `xdub.data.transforms`"""


def prepare_videos(
    sources: Sequence[str | Path],
    out: str | Path,
    recipe: Recipe,
    *,
    workers: int | None = None,
    on_progress: Report | None = None,
) -> Ingested:
    """Add videos, and all videos below folders, to the data set OUT. A killed call can be repeated at any time.

    Raises:
        UserError: a source does not exist, a folder holds no video, or no clip could be created.
    """
    videos = find_videos(sources)
    if len(videos) == 1:
        # A single unreadable video is an error before OUT is created.
        probe(videos[0])
    video = recipe.video
    settings = {
        "prepare": 1,
        "size": video.size,
        "clip_frames": video.clip_frames,
        "crop_scale": video.crop_scale,
    }
    return ingest(
        videos,
        out,
        partial(prepare_video, recipe=recipe),
        manifest_recipe=settings,
        workers=workers,
        on_progress=on_progress,
    )


def find_videos(sources: Sequence[str | Path]) -> list[Path]:
    """List the files, and the video files below the folders in order of their names."""
    videos: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise UserError(f"{source}: holds no video files ({', '.join(SUFFIXES)})")
            videos += inside
        elif source.exists():
            videos.append(source)
        else:
            raise UserError(f"{source}: no such file or folder")
    if not videos:
        raise UserError("no source was given: name video files, or folders of them")
    return videos


def prepare_video(source: str, recipe: Recipe) -> Iterator[Clip | LedgerRow]:
    """Yield the clips of one video, then ledger rows for unused frames, or the row of a rejected video."""
    path = Path(source)
    try:
        spans, has_face, audio = find_clips(path, recipe)
    except Rejected as rejection:
        yield rejection.row(source)
        return
    used = np.zeros(len(has_face), bool)
    for start, span, crops in cut_crops(path, recipe, spans):
        used[start : start + len(crops)] = True
        try:
            yield clip_of(path, crops, start, span, audio)
        except Rejected as rejection:
            yield rejection.row(source, frames_id(start, start + len(crops)))
    yield from unused_rows(source, used, has_face, shortest_clip(recipe))


def shortest_clip(recipe: Recipe) -> int:
    """Return the number of frames that the longest training window needs."""
    windows = [recipe.phase(name).window for name in recipe.phase_names]
    return min(recipe.video.clip_frames, max(windows))


def find_spans(track: FaceTrack, recipe: Recipe) -> list[Span]:
    """Find runs of frames within one shot that are long enough for a clip and have a large enough face.

    Raises:
        Rejected: there is no such run; the check is the last one that no run passed.
    """
    has_face = track.has_face
    if not has_face.any():
        raise Rejected("face", 0.0, 1.0, "no face in any frame")
    needed = shortest_clip(recipe)
    cuts = np.flatnonzero(track.cuts | _jumps(track.landmarks68))
    runs = [piece for start, end in _runs(has_face) for piece in _split(start, end, cuts)]
    longest = max(end - start for start, end in runs)
    if longest < needed:
        if len(track) < needed:
            check, message = "length", f"{longest} frames long; {needed} needed"
        else:
            check, message = "face_frames", f"{longest} frames long with a face in one shot; {needed} needed"
        raise Rejected(check, float(longest), float(needed), message)
    spans = []
    for start, end in runs:
        if end - start >= needed:
            points = track.landmarks68[start:end]
            spans.append(Span(start, end, points, crop_boxes(points, scale=recipe.video.crop_scale)))
    # Some clips of a span may be large enough, which `clip_of` checks.
    least = MIN_SIDE * recipe.video.size
    large = [span for span in spans if span.boxes[:, 2].max() >= least]
    if not large:
        check_face_size(
            max((span.boxes for span in spans), key=lambda boxes: np.median(boxes[:, 2])), recipe.video.size
        )
    return large


def frames_id(start: int, end: int) -> str:
    """Return the name of frames [start, end) in the ledger, where they have no clip id."""
    return f"frames {start}-{end}"


def unused_rows(source: str, used: np.ndarray, has_face: np.ndarray, needed: int) -> Iterator[LedgerRow]:
    """Yield a ledger row for every run of frames that is in no clip; ``used`` and ``has_face`` are bool [F]."""
    for start, end in _runs(~used):
        faces = int(has_face[start:end].sum())
        yield LedgerRow(
            input=source,
            clip_id=frames_id(start, end),
            status="rejected",
            check="face" if faces == 0 else "length",
            value=float(faces),
            threshold=float(needed),
            message="no face" if faces == 0 else "too short for a clip, or the face too small",
        )


def find_clips(
    path: Path, recipe: Recipe, *, sound: Path | None = None
) -> tuple[list[Span], np.ndarray, np.ndarray]:
    """Run the first pass: return the spans for clips, bool [F] of frames with a face, and the sound [N] at 16 kHz.

    ``sound`` names a file to read instead of the video's own track. Raise `Rejected` if no clip can be cut.
    """
    info = probe(path)
    if sound is None and not info.has_audio:
        raise Rejected("audio", 0.0, 1.0, "no audio stream")
    audio = read_audio(sound or path, SAMPLE_RATE)
    loudest = float(frame_levels(audio).max(initial=0.0))
    if loudest < MIN_SOUND:
        raise Rejected("sound", loudest, MIN_SOUND, "the sound is silent")
    with FaceTracker() as tracker:
        track = tracker.track(read_video(path, fps=FPS, exact=False))
    return find_spans(track, recipe), track.has_face, audio


def cut_crops(path: Path, recipe: Recipe, spans: Sequence[Span]) -> Iterator[tuple[int, Span, np.ndarray]]:
    """Run the second pass: yield (first frame, span, crops [F,S,S,3]) of up to ``video.clip_frames`` frames each."""
    size, needed = recipe.video.size, shortest_clip(recipe)
    pieces = [
        (span, start, min(start + recipe.video.clip_frames, span.end))
        for span in spans
        for start in range(span.start, span.end, recipe.video.clip_frames)
    ]
    waiting = iter(piece for piece in pieces if piece[2] - piece[1] >= needed)
    current = next(waiting, None)
    crops: list[np.ndarray] = []
    for n, frame in enumerate(read_video(path, fps=FPS)):
        if current is None:
            return
        span, start, end = current
        if n < start:
            continue
        crops.append(crop(frame[None], span.boxes[n - span.start][None], size)[0])
        if n == end - 1:
            yield start, span, np.stack(crops)
            crops, current = [], next(waiting, None)


def clip_of(path: Path, frames: np.ndarray, start: int, span: Span, audio: np.ndarray) -> Clip:
    """Build the clip of crops [F,S,S,3] that begin at frame ``start`` of a video with the sound ``audio`` [N].

    Raises:
        Rejected: the clip fails a check of its sound, its face's size or its face's motion.
    """
    count, size = frames.shape[:2]
    rows = slice(start - span.start, start - span.start + count)
    sound = np.zeros(count * SAMPLES_PER_FRAME, np.float32)
    part = audio[start * SAMPLES_PER_FRAME :][: len(sound)]
    sound[: len(part)] = part
    check_sound(sound, covered=len(part) / len(sound))
    check_face_size(span.boxes[rows], size)
    points = crop_points(span.landmarks[rows], span.boxes[rows], size)
    face_mask = lower_face_masks(points, size, size)
    check_motion(frames, points, face_mask)
    # The folder often names the speaker or the recording.
    name = f"{path.resolve().parent.name}/{path.name}"
    source = f"{name}:{start}-{start + count}"
    return Clip(
        clip_id=clip_id_of(source, frames, sound),
        source=source,
        speaker=name,
        frames=frames,
        audio=sound,
        landmarks=points,
        face_mask=face_mask,
        lip_mask=lip_masks(points, size, size),
        occluder_mask=np.zeros((count, size, size), bool),
    )


def _jumps(landmarks: np.ndarray) -> np.ndarray:
    """Return bool [F], True where the face of landmarks [F, 68, 2] jumps, as at a cut between similar pictures."""
    from scipy.ndimage import percentile_filter

    eyes = landmarks[:, 36:42].mean(axis=1) - landmarks[:, 42:48].mean(axis=1)
    steps = np.linalg.norm(np.diff(landmarks.mean(axis=1), axis=0), axis=1) / np.linalg.norm(eyes[1:], axis=1)
    # Frames without a face are nan.
    steps = np.concatenate([[0.0], np.nan_to_num(steps)])
    return (steps > MAX_STEP) & (steps > STEP_RATIO * percentile_filter(steps, 90, size=JUMP_FRAMES))


def _split(start: int, end: int, cuts: np.ndarray) -> list[tuple[int, int]]:
    """Split [start, end) at the cuts inside it."""
    inside = [int(cut) for cut in cuts if start < cut < end]
    return list(zip([start, *inside], [*inside, end], strict=True))


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return [start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
