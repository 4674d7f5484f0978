"""Jumps of the face at the seams between segments (paper B.3: windows bridged by motion frames)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xdub.dub.segments import PAPER, Joining


def seams(num_frames: int, window: int, motion: int, joining: Joining = PAPER) -> list[int]:
    """Return the first frame of every segment but the first: frame n belongs to another segment than frame n - 1."""
    return [segment.keep for segment in joining.segments(num_frames, window, motion)[1:]]


def changes(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Compute the mean absolute difference [F-1] of each frame to the previous one, grey levels.

    Args:
        frames: uint8 [F,H,W,3].
        mask: bool [F,H,W]; only pixels in the masks of both frames count; the result is nan if there are none.
    """
    out = np.full(max(0, len(frames) - 1), np.nan)
    for n in range(len(out)):
        both = mask[n] & mask[n + 1]
        if both.any():
            out[n] = np.abs(frames[n + 1][both].astype(np.float32) - frames[n][both]).mean()
    return out


def seam_ratio(frames: np.ndarray, mask: np.ndarray, joints: Sequence[int]) -> float:
    """Compute the mean change at the seams over the mean change elsewhere; 1 is an invisible seam.

    The result is nan without seams, and for a video that does not change elsewhere.
    """
    change = changes(frames, mask)
    is_seam = np.zeros(len(change), bool)
    is_seam[[joint - 1 for joint in joints]] = True
    valid = np.isfinite(change)
    at_seams, elsewhere = change[is_seam & valid], change[~is_seam & valid]
    if not len(at_seams) or not len(elsewhere) or not elsewhere.mean():
        return float("nan")
    return float(at_seams.mean() / elsewhere.mean())


def seam_scores(frames: np.ndarray, mask: np.ndarray, joints: Sequence[int]) -> dict[str, float]:
    """Return {"seam": ratio} for a video with measurable seams, else an empty dictionary."""
    ratio = seam_ratio(frames, mask, joints)
    return {"seam": ratio} if np.isfinite(ratio) else {}
