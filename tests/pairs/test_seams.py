"""A jump where segments meet is measured; one elsewhere, or outside of the face, is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.pairs.seams import changes, seam_ratio, seam_scores, seams

FACE = np.zeros((60, 16, 16), bool)
FACE[:, 4:12, 4:12] = True


def _drifting(step: int = 2) -> np.ndarray:
    """uint8 [60,16,16,3] that grows brighter by as much with every frame."""
    return np.tile((step * np.arange(60, dtype=np.uint8))[:, None, None, None], (1, 16, 16, 3))


def test_seams_lie_where_a_segment_contributes_its_first_frame() -> None:
    assert seams(25, 25, 5) == []
    assert seams(45, 25, 5) == [25]
    assert seams(77, 25, 5) == [25, 45, 57]  # the last window is moved back to end with the clip
    assert seams(77, 77, 5) == []


def test_an_even_change_has_no_seam_and_a_jump_is_as_large_as_it_was_made() -> None:
    frames = _drifting()
    assert seam_ratio(frames, FACE, [25, 45]) == pytest.approx(1)
    frames[25:] += 10  # 12 levels at the first seam, 2 at the second and everywhere else
    assert seam_ratio(frames, FACE, [25, 45]) == pytest.approx((12 + 2) / 2 / 2)
    assert seam_ratio(frames, FACE, [45]) < 1


def test_only_the_face_counts() -> None:
    frames = _drifting()
    frames[25:, :3] += 100
    assert seam_ratio(frames, FACE, [25]) == pytest.approx(1)


def test_what_cannot_be_measured_is_no_score() -> None:
    frames = _drifting()
    assert seam_scores(frames, FACE, []) == {}
    assert seam_scores(frames, np.zeros_like(FACE), [25]) == {}
    assert seam_scores(_drifting(0), FACE, [25]) == {}
    hidden = FACE.copy()
    hidden[24] = False  # the face is covered right at the seam
    assert np.isnan(changes(frames, hidden)[[23, 24]]).all()
    assert seam_scores(frames, hidden, [25]) == {} != seam_scores(frames, hidden, [25, 45])
