"""The face mask of the mesh: whole face, fixed jaw, the open mouth inside, no trace of the lips in its area."""

from __future__ import annotations

import numpy as np

from xdub.masks.face_model import head_poses, person_shape
from xdub.masks.face_shape import FaceViews
from xdub.masks.mesh_shape import MeshShape, area_correction, outline
from xdub.perception.face_geometry import canonical_face
from xdub.perception.face_mesh import hull_masks, lower_face_masks


def test_the_area_of_the_mask_does_not_follow_the_mouth_and_that_of_a_lip_hull_does(talkers):
    masks, lips, openings = [], [], []
    for head in talkers:
        size = head.views.frames.shape[1]
        hull = hull_masks(head.clip.landmarks[:, 48:68], size, size)
        for areas, mask in ((masks, MeshShape().masks(head.views)), (lips, hull)):
            values = mask.sum(axis=(1, 2))
            areas.append(values / values.mean() - 1)
        openings.append(head.clip.opening - head.clip.opening.mean())
        assert abs(np.corrcoef(masks[-1], openings[-1])[0, 1]) < 0.2
    together = np.concatenate(openings)
    assert abs(np.corrcoef(np.concatenate(masks), together)[0, 1]) < 0.1
    assert np.concatenate(masks).std() < 0.04
    assert np.corrcoef(np.concatenate(lips), together)[0, 1] > 0.8


def test_an_area_that_follows_the_lips_is_corrected_and_another_one_is_kept():
    time = np.arange(60)
    gap = 0.1 + 0.1 * np.sin(time / 4)
    slow = np.exp(0.1 * time / 60)
    leaking = 1000 * np.exp(0.02 * np.sin(time / 4)) * slow
    corrected = leaking * np.exp(area_correction(leaking, gap))
    assert np.corrcoef(leaking / slow, gap)[0, 1] > 0.99
    assert abs(np.corrcoef(corrected, gap)[0, 1]) < 0.05
    assert 0 <= area_correction(1000 * slow, gap).min() and area_correction(1000 * slow, gap).max() < 0.02
    assert not area_correction(leaking, np.full(60, np.nan)).any()


def test_the_mask_holds_the_open_mouth_and_the_whole_face_in_every_frame(talkers):
    for head in talkers:
        masks = MeshShape().masks(head.views)
        size = masks.shape[1]
        mouth = hull_masks(head.clip.landmarks[:, 48:68], size, size)
        assert not (mouth & ~masks).any()
        # The renderer's own mask ends below the eyes, and so did the masks of earlier versions.
        truth = head.clip.face_mask
        assert (truth & ~masks).sum() < 0.06 * truth.sum()
        eyes = hull_masks(head.clip.landmarks[:, 36:48], size, size)
        assert (eyes & masks).sum() > 0.95 * eyes.sum()
        assert (eyes & lower_face_masks(head.clip.landmarks, size, size)).sum() < 0.5 * eyes.sum()


def test_the_mouth_stays_inside_the_mask_of_a_head_that_turns_by_60_degrees(turning):
    masks = MeshShape().masks(turning.views)
    tracked = np.isfinite(turning.views.mesh).all(axis=(1, 2))
    assert tracked.mean() > 0.6 and np.array_equal(masks.any(axis=(1, 2)), tracked)
    mouth = hull_masks(turning.clip.landmarks[:, 48:68], *masks.shape[1:])
    assert not (mouth & ~masks)[tracked].any()
    turn = head_poses(turning.views.mesh, person_shape(turning.views.person)).turn[tracked]
    assert np.ptp(np.degrees(np.arctan2(turn[:, 0, 2], turn[:, 2, 2]))) > 70


def test_a_wider_face_has_a_wider_mask(talkers):
    """The person's own shape, not a mean face, is projected."""
    views = talkers[0].views
    shape = person_shape(views.person)
    assert np.linalg.norm(shape - canonical_face().vertices, axis=1).mean() > 0.1
    wide, person = views.mesh.copy(), views.person.copy()
    for mesh in (wide, person):
        cheeks = np.abs(canonical_face().vertices[:, 0]) > 5
        middle = mesh[:, 168:169, 0]
        mesh[:, :468, 0] = np.where(cheeks, middle + 1.15 * (mesh[:, :468, 0] - middle), mesh[:, :468, 0])
    ratio = np.ptp(outline(wide, person)[..., 0], axis=1) / np.ptp(
        outline(views.mesh, views.person)[..., 0], axis=1
    )
    assert (ratio > 1.05).all()


def test_frames_without_a_face_have_empty_masks_and_leave_the_others_in_place(talkers):
    views = talkers[1].views
    mesh = views.mesh.copy()
    mesh[7:9] = np.nan
    gap = FaceViews(frames=views.frames, landmarks=views.landmarks, mesh=mesh, person=views.person)
    masks, whole = MeshShape().masks(gap), MeshShape().masks(views)
    assert not masks[7:9].any() and masks[[0, 6, 9, 44]].any(axis=(1, 2)).all()
    assert (masks[6] ^ whole[6]).mean() < 0.02
    nobody = FaceViews(
        frames=views.frames, landmarks=views.landmarks, mesh=mesh * np.nan, person=views.person * np.nan
    )
    assert not MeshShape().masks(nobody).any()
