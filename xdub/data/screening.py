"""Screening in preparation: black bars and the speaking face of a video, the checks of a clip, late or early sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xdub.data.clip import Clip
from xdub.data.clip_checks import Rejected
from xdub.data.spans import Span, find_spans
from xdub.media.stored_sound import StoredSound
from xdub.perception.faces import FaceTrack, FaceTracker
from xdub.perception.mesh_file import MeshFile
from xdub.perception.other_faces import OtherFaces
from xdub.screen.active_speaker import follow_speaker
from xdub.screen.check import Footage
from xdub.screen.letterbox import Area, LetterboxWatch
from xdub.screen.screen import Screen, missing_sync

if TYPE_CHECKING:
    from xdub.config import Recipe, ScreenConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedSource:
    """The speaking face of a video, in px of the picture within the black bars."""

    track: FaceTrack
    area: Area | None = None
    """The picture within the bars; None without bars."""
    faces: np.ndarray
    """[F] int, number of faces that were compared in the frame's piece"""
    lead: np.ndarray
    """[F] float32, lead of the speaking face over the next one; nan in pieces with one face"""


def track_source(
    tracker: FaceTracker,
    frames: Iterable[np.ndarray],
    audio: StoredSound,
    config: ScreenConfig | None,
    record: MeshFile | None = None,
    *,
    piece: int,
) -> TrackedSource:
    """Track the face that speaks through frames uint8 [H, W, 3] with the sound [N] at 16 kHz, in one pass.

    Without ``config`` the most prominent face is tracked, and bars stay. ``record`` gets the meshes of the most
    prominent face in px of the whole picture. The speaking face is chosen every ``piece`` frames.
    """
    bars = LetterboxWatch()
    others = OtherFaces(tracker.search) if config is not None and config.speaker_lead is not None else None
    track = tracker.track(bars.watch(frames), record=record, observer=others)
    speaker = follow_speaker(track, [] if others is None else others.faces, audio, piece=piece)
    area = bars.area() if config is not None and config.letterbox else None
    return TrackedSource(
        track=speaker.track if area is None else _inside(speaker.track, area),
        area=area,
        faces=speaker.faces,
        lead=speaker.lead,
    )


def speaker_spans(source: TrackedSource, recipe: Recipe) -> list[Span]:
    """Find the spans for clips of a tracked source. Raise `Rejected` if there is none, see `find_spans`."""
    return [
        replace(
            span,
            area=source.area,
            faces=source.faces[span.start : span.end],
            lead=source.lead[span.start : span.end],
        )
        for span in find_spans(source.track, recipe)
    ]


def check_speaker(faces: np.ndarray, lead: np.ndarray, least: float | None) -> dict[str, float]:
    """Raise `Rejected` for a clip of several faces of which none speaks more clearly than the others; return scores.

    ``faces`` and ``lead`` [F] are those of `TrackedSource`. A clip that touches several pieces has their smallest lead.
    """
    count = int(faces.max(initial=1))
    if least is None or count < 2:
        return {"faces": float(count)}
    value = float(np.nanmin(lead))
    if value < least:
        raise Rejected("active_speaker", value, least, f"{count} faces, and none of them clearly speaks")
    return {"faces": float(count), "active_speaker": value, "active_speaker.least": least}


class ClipScreen:
    """The checks of a recipe, with their networks in memory."""

    def __init__(self, recipe: Recipe) -> None:
        """Load the networks. Raise UserError if weights are missing, other than those of a SyncNet."""
        self._screen = Screen(recipe)
        self._missing = missing_sync(recipe)

    def __call__(self, build: Callable[..., Clip], scores: dict[str, float]) -> tuple[Clip, str]:
        """Return the clip, with its sound moved to the lips, and the check without a result, in words.

        Args:
            build: builds the clip; its arguments are those of `Preparer.clip_of` after the sound.
            scores: receives every value and bound by name.

        Raises:
            Rejected: the clip fails a check.
        """
        clip = build(scores=scores)
        result = self._screen(Footage(frames=clip.frames, landmarks=clip.landmarks, sound=clip.sound))
        scores |= result.scores
        if (failure := result.failure) is not None:
            assert failure.threshold is not None
            raise Rejected(failure.name, failure.value, failure.threshold, failure.message, scores)
        if result.shift:
            clip = build(shift=result.shift, scores=scores)
            scores["shift"] = float(result.shift)
        return clip, self._missing or result.note


def _inside(track: FaceTrack, area: Area) -> FaceTrack:
    """Return a track in px of an area of the picture."""
    corner = np.array([area.left, area.top], np.float32)
    return replace(
        track,
        landmarks68=track.landmarks68 - corner,
        landmarks478=None
        if track.landmarks478 is None
        else track.landmarks478 - np.append(corner, np.float32(0)),
        bounds=None if track.bounds is None else track.bounds - np.tile(corner, 2),
        height=area.bottom - area.top,
        width=area.right - area.left,
    )
