"""Spans of a video that clips are cut from: runs of frames of one shot, with one face that is large enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xdub.data.clip_checks import MIN_SIDE, Rejected, check_face_size
from xdub.data.face_boxes import face_boxes
from xdub.data.ledger import LedgerRow
from xdub.perception.faces import FaceTrack
from xdub.perception.mesh_file import MeshFile
from xdub.screen.letterbox import Area

if TYPE_CHECKING:
    from xdub.config import Recipe

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
    area: Area | None = None
    """The picture within black bars, which landmarks and boxes refer to; None without bars."""
    faces: np.ndarray | None = None
    """[n] number of faces that were compared, see `xdub.data.screening`"""
    lead: np.ndarray | None = None
    """[n] lead of the speaking face over the next one"""
    meshes: MeshFile | None = None
    """Meshes of the most prominent face in all frames of the video, px of the whole picture, if recorded"""


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
            boxes = face_boxes(track, slice(start, end), recipe.video)
            spans.append(Span(start, end, points, boxes, meshes=track.meshes))
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
