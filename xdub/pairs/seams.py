"""Where segments were joined: does the face jump there? (paper B.3: windows bridged by motion frames)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xdub.dub.segments import plan_segments


def seams(num_frames: int, window: int, motion: int) -> list[int]:
    """First frame of every segment but the first: frame n is of another segment than frame n - 1."""
    return [segment.keep for segment in plan_segments(num_frames, window, motion)[1:]]


def changes(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean absolute difference [F-1], grey levels, of each frame to the one before, within the mask of both.

    Args:
        frames: uint8 [F,H,W,3]. mask: bool [F,H,W]. nan where the masks of two frames have nothing in common.
    """
    out = np.full(max(0, len(frames) - 1), np.nan)
    for n in range(len(out)):
        both = mask[n] & mask[n + 1]
        if both.any():
            out[n] = np.abs(frames[n + 1][both].astype(np.float32) - frames[n][both]).mean()
    return out


def seam_ratio(frames: np.ndarray, mask: np.ndarray, joints: Sequence[int]) -> float:
    """Mean change at the seams over the mean change elsewhere; 1 is a joint that nobody sees.

    nan without seams, and where nothing changes elsewhere.
    """
    change = changes(frames, mask)
    here = np.zeros(len(change), bool)
    here[[joint - 1 for joint in joints]] = True
    at, elsewhere = change[here & np.isfinite(change)], change[~here & np.isfinite(change)]
    if not len(at) or not len(elsewhere) or not elsewhere.mean():
        return float("nan")
    return float(at.mean() / elsewhere.mean())


def seam_scores(frames: np.ndarray, mask: np.ndarray, joints: Sequence[int]) -> dict[str, float]:
    """{"seam": ratio} of a video that has seams to measure, else nothing."""
    ratio = seam_ratio(frames, mask, joints)
    return {"seam": ratio} if np.isfinite(ratio) else {}
