"""Face masks of a clip that shows another face than the recorded one, whose meshes are measured again."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest

from xdub.config import MasksConfig
from xdub.data.clip_checks import Rejected
from xdub.data.clip_masks import ClipMasks
from xdub.data.spans import Span
from xdub.perception.face_search import SearchWindow
from xdub.perception.mesh_file import MeshFile


class Search:
    """Stand-in for the search for faces: it returns the meshes of a clip one by one, except those of some frames."""

    def __init__(self, meshes: np.ndarray, lost: Collection[int]) -> None:
        self._meshes = iter([] if n in lost else [mesh] for n, mesh in enumerate(meshes))

    def in_window(self, frame: np.ndarray, window: SearchWindow) -> list[np.ndarray]:
        return next(self._meshes)


def face_masks(head, lost: Collection[int]) -> np.ndarray:
    """Return the face masks of a clip whose own face is not recorded, and not detected in some frames either."""
    views, count = head.views, len(head.views.frames)
    record = MeshFile()
    for _ in range(count):
        record.append(np.full((478, 3), np.nan))
    boxes = np.tile(np.float32([48, 48, 1]), (count, 1))
    masks = ClipMasks(MasksConfig(), Search(views.mesh, lost))
    return masks.face(
        masks.views(views.frames, 0, Span(0, count, views.landmarks, boxes, meshes=record), views.landmarks)
    )


def test_a_short_gap_of_a_measured_face_is_interpolated(talkers):
    whole, bridged = (face_masks(talkers[0], lost) for lost in ((), (20, 21, 22)))
    area = whole.sum(axis=(1, 2))
    assert (np.abs(bridged.sum(axis=(1, 2)) / area - 1) < 0.1).all()


@pytest.mark.parametrize("lost", [range(5, 25), range(45), (0,)])
def test_a_clip_with_frames_without_a_face_mask_is_rejected(talkers, lost):
    with pytest.raises(Rejected) as caught:
        face_masks(talkers[0], lost)
    assert (caught.value.check, caught.value.threshold) == ("face_mask", 1.0)
    assert caught.value.value == pytest.approx(1 - len(lost) / 45)
