"""Occluders as in the paper (B.3): a language model names the objects in front of a face, and SAM 2 segments them."""

from __future__ import annotations

import logging

import numpy as np

from xdub.masks.face_shape import FaceViews
from xdub.masks.segmenter import VideoSegmenter
from xdub.masks.vision_language import VisionLanguageModel

logger = logging.getLogger(__name__)

LOOKS = (0.5, 0.25, 0.75, 0.0, 1.0)
"""Positions in a clip of the frames in which the named objects are searched, until one shows them."""


class PhraseFinder:
    """Finder of occluders by a phrase; both networks stay in memory."""

    name = "vlm"

    def __init__(self, model: VisionLanguageModel, segmenter: VideoSegmenter) -> None:
        self._model, self._segmenter = model, segmenter

    def find(self, views: FaceViews, face: np.ndarray) -> np.ndarray:
        """Return bool [F, S, S]; see `OccluderFinder.find`."""
        if not face.any() or not (phrase := self._model.describe(views.frames)):
            return np.zeros_like(face)
        for position in LOOKS:
            frame = round(position * (len(face) - 1))
            boxes = self._model.locate(views.frames[frame], phrase)
            if len(boxes):
                masks = self._segmenter.track(views.frames, frame, boxes) & face
                share = masks.sum() / face.sum()
                logger.info("occluders: %s in %d boxes, %.1f %% of the face", phrase, len(boxes), 100 * share)
                return masks
        logger.warning("occluders: %r was named, and no frame shows a box of it", phrase)
        return np.zeros_like(face)
