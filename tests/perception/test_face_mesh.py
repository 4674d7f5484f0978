"""The face mask covers the part that speech moves and is independent of speech."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.perception.face_mesh import POSE_POINTS, head_pose, hull_masks, lip_masks, lower_face_masks


def test_moving_lips_and_jaw_leaves_the_mask_pixel_identical(heads):
    points = heads[0].clip.landmarks
    rng = np.random.default_rng(0)
    moved = points.copy()
    still = [*range(17, 48)]
    lively = [i for i in range(68) if i not in still]
    moved[:, lively] += rng.normal(0, 8, (len(points), len(lively), 2)).astype(np.float32)
    assert np.array_equal(lower_face_masks(points, 80, 80), lower_face_masks(moved, 80, 80))


def test_blinks_leave_the_mask_identical(heads):
    points = heads[0].clip.landmarks
    blink = points.copy()
    for lid in (37, 38, 40, 41, 43, 44, 46, 47):
        assert lid not in POSE_POINTS
        blink[:, lid, 1] += 5
    assert np.array_equal(lower_face_masks(points, 80, 80), lower_face_masks(blink, 80, 80))


def test_the_mask_covers_the_mesh_of_rendered_faces_and_the_whole_mouth(heads):
    for pair in heads:
        mask, truth = lower_face_masks(pair.clip.landmarks, 80, 80), pair.clip.face_mask
        assert (mask & truth).sum() / truth.sum() > 0.9
        assert (mask & truth).sum() / (mask | truth).sum() > 0.75
        mouth = hull_masks(pair.clip.landmarks[:, 48:68], 80, 80)
        assert (mask & mouth).sum() / mouth.sum() > 0.99


def test_frames_without_landmarks_have_empty_masks_and_do_not_disturb_the_others(heads):
    points = heads[0].clip.landmarks.copy()
    points[3] = np.nan
    masks = lower_face_masks(points, 80, 80)
    assert not masks[3].any() and masks[[0, 1, 2, 4, 5]].any(axis=(1, 2)).all()
    whole = lower_face_masks(heads[0].clip.landmarks, 80, 80)
    assert (masks[2] ^ whole[2]).mean() < 0.02
    assert not lower_face_masks(np.full((2, 68, 2), np.nan, np.float32), 80, 80).any()


def posed(yaw: float, pitch: float, roll: float, scale: float) -> np.ndarray:
    """Project the model's points to [1, 68, 2] at a pose; all other points lie far away."""
    cy, sy, cp, sp, cr, sr = *cs(yaw), *cs(pitch), *cs(roll)
    turn = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ turn
    points = np.full((1, 68, 2), 1e4)
    points[0, list(POSE_POINTS)] = (np.array(list(POSE_POINTS.values())) @ turn.T)[:, :2] * scale + (300, 200)
    return points


def cs(angle: float) -> tuple[float, float]:
    """Return cosine and sine."""
    return float(np.cos(angle)), float(np.sin(angle))


@given(st.floats(-0.6, 0.6), st.floats(-0.3, 0.3), st.floats(-0.5, 0.5), st.floats(5, 400))
@settings(deadline=None, max_examples=40)
def test_the_pose_of_the_projected_model_is_recovered(yaw, pitch, roll, scale):
    points = posed(yaw, pitch, roll, scale)
    camera = head_pose(points)[0]
    model = np.array(list(POSE_POINTS.values()))
    off = np.linalg.norm(model @ camera[:, :3].T + camera[:, 3] - points[0, list(POSE_POINTS)], axis=1)
    # The prior pulls turns a little towards the front.
    assert off.mean() < 0.05 * scale
    rows = camera[:, :3]
    assert np.isclose(rows[0] @ rows[1], 0, atol=1e-6 * scale**2)
    assert np.isclose(np.linalg.norm(rows[0]), np.linalg.norm(rows[1]))


def test_the_mask_moves_with_the_head(heads):
    points = heads[0].clip.landmarks
    shifted = lower_face_masks(points + np.float32([7, 4]), 90, 90)
    assert np.array_equal(shifted[:, 4:84, 7:87], lower_face_masks(points, 80, 80))


def test_lip_masks_hold_the_mouth_of_the_neighbouring_frames(heads):
    points = heads[0].clip.landmarks
    masks = lip_masks(points, 80, 80)
    mouths = hull_masks(points[:, 48:60], 80, 80)
    for shift in (-2, 0, 2):
        assert (mouths[4:-4] & ~np.roll(masks, shift, axis=0)[4:-4]).sum() == 0
    assert masks.mean() < 0.35
    assert not lip_masks(np.full((1, 68, 2), np.nan, np.float32), 80, 80).any()
