"""Boxes of the face crops that a recipe names, for a part of a tracked video."""

from __future__ import annotations

import numpy as np

from xdub.config import VideoConfig
from xdub.data.landmark_boxes import landmark_boxes
from xdub.data.transforms import crop_boxes
from xdub.perception.faces import FaceTrack


def face_boxes(track: FaceTrack, index: np.ndarray | slice, video: VideoConfig) -> np.ndarray:
    """Return boxes [N, 3] float32 (cx, cy, side) of the frames ``index`` of a track, which show one face.

    The boxes are those of ``video.crop`` and ``video.crop_scale``. Raise ValueError for a track without the bounds that
    they need.
    """
    if video.crop == "template":
        return crop_boxes(track.landmarks68[index], scale=video.crop_scale)
    if track.bounds is None:
        raise ValueError("the track has no bounds; `FaceTracker.track` computes them")
    return landmark_boxes(track.bounds[index], track.width, track.height, scale=video.crop_scale)
