"""The cut of one training sample from one clip: a pure function of the clip and a random generator.

A sample carries the sound of its window; `xdub.speech_windows` has the rows of features that each latent attends to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xdub.config import inpaints, needs_pairs
from xdub.data.clip import Clip
from xdub.data.masks import to_latent_mask
from xdub.data.sound import window_sound
from xdub.errors import UserError
from xdub.geometry import CodecGeometry
from xdub.speech_windows import SpeechForm, speech_windows


def pick_reference(num_frames: int, start: int, window: int, rng: np.random.Generator) -> int:
    """Draw a frame outside the window start ... start + window - 1, or any frame if the window is the whole clip."""
    outside = np.setdiff1d(np.arange(num_frames), np.arange(start, start + window))
    return int(rng.choice(outside if len(outside) else np.arange(num_frames)))


def cut_window(
    clip: Clip,
    *,
    phase: str,
    window: int,
    geometry: CodecGeometry,
    rng: np.random.Generator,
    speech: SpeechForm = "frames",
) -> dict[str, Any]:
    """Cut one sample of F = window frames from a random start.

    Returns:
        frames: uint8 [F,H,W,3].
        reference: uint8 [1,H,W,3], one frame of the clip (generator), or [F,H,W,3], the same window of V' (editor);
            absent in a phase that trains no model.
        landmarks: float32 [F,68,2], crop px of the frames, nan without a face.
        hidden: bool [F,H,W], M_vis, the pixels that the generator inpaints (generator only).
        face_mask, lip_mask: float32 [1,f,h,w].
        starts: int64 [f], the first row of audio features of each latent (`xdub.speech_windows`).
        sound: float32 [640 (F + 50)], the sound of the window and a second on either side (`xdub.data.sound`).
        sample_id: the clip id.
        start: first frame of the window.

    Raises:
        UserError: the clip is shorter than the window, or an editor phase gets a clip without V'.
    """
    count = clip.num_frames
    if window > count:
        raise UserError(f"clip {clip.clip_id} has {count} frames, the {phase} window needs {window}")
    start = int(rng.integers(count - window + 1))
    frames = slice(start, start + window)
    sample: dict[str, Any] = {"frames": clip.frames[frames], "landmarks": clip.landmarks[frames]}
    if inpaints(phase):
        sample["hidden"] = clip.visible_mask[frames]
        reference = pick_reference(count, start, window, rng)
        sample["reference"] = clip.frames[reference : reference + 1]
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
            "sound": window_sound(clip.sound, start, window),
            "sample_id": clip.clip_id,
            "start": start,
        }
    )
