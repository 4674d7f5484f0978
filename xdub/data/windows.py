"""The cut of one training sample from one clip: a pure function of the clip and a random generator.

A sample carries the sound of its window; `xdub.speech_windows` has the rows of features that each latent attends to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xdub.config import inpaints, needs_pairs
from xdub.data.clip import Clip
from xdub.data.masks import to_latent_mask
from xdub.data.sound import window_sound
from xdub.errors import UserError
from xdub.geometry import CodecGeometry
from xdub.speech_windows import SpeechForm, speech_windows


@dataclass(frozen=True)
class Draw:
    """The choice of one sample of a clip."""

    start: int
    """First frame of the window."""
    reference: int | None
    """Frame of the reference in a phase that inpaints; None in the others, whose reference has the same window."""
    elsewhere: bool = False
    """True if ``reference`` is a number among the clip's frames of another segment, `Clip.references`."""


def window_starts(num_frames: int, window: int, stride: int = 1) -> range:
    """Return the first frames of all windows of a clip: multiples of ``stride``. Too short a clip has none."""
    return range(0, num_frames - window + 1, stride)


def pick_reference(
    num_frames: int, start: int, window: int, rng: np.random.Generator, stride: int = 1
) -> int:
    """Draw a multiple of ``stride`` outside the window start ... start + window - 1, or any if none is outside."""
    candidates = np.arange(0, num_frames, stride)
    outside = np.setdiff1d(candidates, np.arange(start, start + window))
    return int(rng.choice(outside if len(outside) else candidates))


def draw_window(
    clip_id: str,
    num_frames: int,
    *,
    phase: str,
    window: int,
    rng: np.random.Generator,
    stride: int = 1,
    references: int = 0,
) -> Draw:
    """Draw window and reference on the grid of ``stride`` frames.

    The reference of a phase that inpaints is one of the clip's ``references`` frames of another segment, if it has any.
    Pixels and cached latents (`xdub.data.latent_cache`) are drawn alike. Raise UserError for a clip that is shorter
    than the window.
    """
    if window > num_frames:
        raise UserError(f"clip {clip_id} has {num_frames} frames, the {phase} window needs {window}")
    starts = window_starts(num_frames, window, stride)
    start = starts[int(rng.integers(len(starts)))]
    if inpaints(phase) and references:
        return Draw(start, int(rng.integers(references)), elsewhere=True)
    reference = pick_reference(num_frames, start, window, rng, stride) if inpaints(phase) else None
    return Draw(start, reference)


def cut_window(
    clip: Clip,
    *,
    phase: str,
    window: int,
    geometry: CodecGeometry,
    rng: np.random.Generator,
    speech: SpeechForm = "frames",
    stride: int = 1,
) -> dict[str, Any]:
    """Cut one sample of F = window frames from a random start, a multiple of ``stride``; see `cut_at` for its fields.

    Raises:
        UserError: the clip is shorter than the window, or an editor phase gets a clip without V'.
    """
    draw = draw_window(
        clip.clip_id,
        clip.num_frames,
        phase=phase,
        window=window,
        rng=rng,
        stride=stride,
        references=clip.num_references,
    )
    return cut_at(clip, draw, phase=phase, window=window, geometry=geometry, speech=speech)


def cut_at(
    clip: Clip, draw: Draw, *, phase: str, window: int, geometry: CodecGeometry, speech: SpeechForm = "frames"
) -> dict[str, Any]:
    """Cut the sample of F = window frames that ``draw`` chose.

    Returns:
        frames: uint8 [F,H,W,3].
        reference: uint8 [1,H,W,3], one frame of another segment or of the clip (generator), or [F,H,W,3], the same
            window of V' (editor); absent in a phase that trains no model.
        landmarks: float32 [F,68,2], crop px of the frames, nan without a face.
        hidden: bool [F,H,W], M_vis, the pixels that the generator inpaints (generator only).
        face_mask, lip_mask: float32 [1,f,h,w].
        starts: int64 [f], the first row of audio features of each latent (`xdub.speech_windows`).
        sound: float32 [640 (F + 50)], the sound of the window and a second on either side (`xdub.data.sound`).
        sample_id: the clip id.
        start: first frame of the window.

    Raises:
        UserError: an editor phase gets a clip without V'.
    """
    frames = slice(draw.start, draw.start + window)
    sample: dict[str, Any] = {"frames": clip.frames[frames], "landmarks": clip.landmarks[frames]}
    if draw.reference is not None:
        sample["hidden"] = clip.visible_mask[frames]
        candidates = clip.references if draw.elsewhere else clip.frames
        assert candidates is not None, f"clip {clip.clip_id} has no frames of another segment"
        sample["reference"] = candidates[draw.reference : draw.reference + 1]
    elif needs_pairs(phase):
        if clip.reference is None:
            raise UserError(
                f"clip {clip.clip_id} has no reference video: phase {phase} trains on pairs (`xdub pairs`)"
            )
        sample["reference"] = clip.reference[frames]
    masks = {
        name: to_latent_mask(getattr(clip, name)[frames], geometry) for name in ("face_mask", "lip_mask")
    }
    return (
        sample
        | masks
        | {
            "starts": speech_windows(speech, geometry).starts(masks["face_mask"].shape[1]),
            "sound": window_sound(clip.sound, draw.start, window),
            "sample_id": clip.clip_id,
            "start": draw.start,
        }
    )
