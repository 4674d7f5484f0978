"""Face runs: stretches of a video that show one face without a break. Only face runs are dubbed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.config import VideoConfig
from xdub.data.face_boxes import face_boxes
from xdub.data.transforms import crop_boxes, crop_points
from xdub.perception.face_mesh import lip_masks, lower_face_masks
from xdub.perception.faces import FaceTrack

JUMP = 0.35
"""Share of the box side: a face that moves further between two frames is another face, or another shot."""
GROWTH = 1.4
"""Ratio of box sides: a face that grows or shrinks more between two frames is another face."""
MARGIN = 4
"""Frames of context that the smoothing of masks needs."""


@dataclass(frozen=True, kw_only=True)
class FaceRun:
    """One face over the output frames [start, start + N)."""

    start: int
    boxes: np.ndarray
    """[N,3] float32: cx, cy, side of the face crop, px of the picture."""
    landmarks: np.ndarray
    """[N,68,2] float32, px of the picture."""

    def __len__(self) -> int:
        return len(self.boxes)

    def masks(self, index: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute (jaw-fixed face, lips), each bool [len(index),size,size], of the run's frames ``index``."""
        low, high = max(0, index.min() - MARGIN), min(len(self), index.max() + 1 + MARGIN)
        points = crop_points(self.landmarks[low:high], self.boxes[low:high], size)
        return lower_face_masks(points, size, size)[index - low], lip_masks(points, size, size)[index - low]


def find_runs(track: FaceTrack, index: np.ndarray, video: VideoConfig) -> list[FaceRun]:
    """Return the runs on the time line of the output, whose frame n shows frame ``index[n]`` of the tracked video.

    ``video`` names the box of the face crops.
    """
    visible = track.has_face[index]
    starts_shot = _breaks(track, index)
    runs = []
    begin = None
    for n in range(len(index) + 1):
        ends = begin is not None and (n == len(index) or not visible[n] or starts_shot[n])
        if ends:
            frames = index[begin:n]
            boxes = face_boxes(track, frames, video)
            runs.append(FaceRun(start=begin, boxes=boxes, landmarks=track.landmarks68[frames]))
            begin = None
        if n < len(index) and visible[n] and begin is None:
            begin = n
    return runs


def _breaks(track: FaceTrack, index: np.ndarray) -> np.ndarray:
    """Return bool [F]: True where output frame n does not continue frame n - 1."""
    breaks = np.zeros(len(index), bool)
    before, after = index[:-1], index[1:]
    # A cut marks the first frame of a shot; in backward play the cut lies on the other side of that frame.
    breaks[1:] = track.cuts[np.maximum(before, after)] & (before != after)
    visible = track.has_face
    if visible.any():
        boxes = np.full((len(track), 3), np.nan)
        boxes[visible] = crop_boxes(track.landmarks68, smooth=0)[visible]
        one, other = boxes[before], boxes[after]
        far = np.linalg.norm(one[:, :2] - other[:, :2], axis=1) > JUMP * one[:, 2]
        ratio = other[:, 2] / one[:, 2]
        # A comparison with nan is false.
        breaks[1:] |= far | (ratio > GROWTH) | (ratio < 1 / GROWTH)
    return breaks
