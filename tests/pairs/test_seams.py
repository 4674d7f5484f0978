"""The seam score measures a jump where segments meet, not a jump elsewhere or outside of the face."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.pairs.seams import changes, seam_ratio, seam_scores, seams

FACE = np.zeros((60, 16, 16), bool)
FACE[:, 4:12, 4:12] = True


def _drifting(step: int = 2) -> np.ndarray:
    """Return uint8 [60,16,16,3] whose brightness grows by ``step`` with every frame."""
    return np.tile((step * np.arange(60, dtype=np.uint8))[:, None, None, None], (1, 16, 16, 3))


def test_seams_are_the_first_frames_that_later_segments_contribute() -> None:
    assert seams(25, 25, 5) == []
    assert seams(45, 25, 5) == [25]
    # The last window starts earlier, so that it ends with the clip.
    assert seams(77, 25, 5) == [25, 45, 57]
    assert seams(77, 77, 5) == []


def test_an_even_change_has_no_seam_and_a_jump_has_its_true_size() -> None:
    frames = _drifting()
    assert seam_ratio(frames, FACE, [25, 45]) == pytest.approx(1)
    # The change is 12 levels at the first seam, and 2 at the second and elsewhere.
    frames[25:] += 10
    assert seam_ratio(frames, FACE, [25, 45]) == pytest.approx((12 + 2) / 2 / 2)
    assert seam_ratio(frames, FACE, [45]) < 1


def test_changes_outside_the_face_do_not_affect_the_seam_score() -> None:
    frames = _drifting()
    frames[25:, :3] += 100
    assert seam_ratio(frames, FACE, [25]) == pytest.approx(1)


def test_a_video_without_a_measurable_seam_has_no_score() -> None:
    frames = _drifting()
    assert seam_scores(frames, FACE, []) == {}
    assert seam_scores(frames, np.zeros_like(FACE), [25]) == {}
    assert seam_scores(_drifting(0), FACE, [25]) == {}
    hidden = FACE.copy()
    # The face is covered at the seam.
    hidden[24] = False
    assert np.isnan(changes(frames, hidden)[[23, 24]]).all()
    assert seam_scores(frames, hidden, [25]) == {} != seam_scores(frames, hidden, [25, 45])
