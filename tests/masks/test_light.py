"""Occluders found by their appearance: microphones and hands on rendered heads, and nothing on a bare face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xdub.masks.light import LightFinder
from xdub.masks.mesh_shape import MeshShape

MICROPHONE, HAND = 144, 120
"""Indices of clips whose forced occluder is a microphone, and a hand."""


@pytest.fixture(scope="module")
def occluded(film):
    """Return a function that renders a head with an object in front of it."""
    from xdub.render import scene

    def render(index: int):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scene, "OCCLUDED", 1.0)
            return film(index, frames=75)

    return render


def overlap(head) -> float:
    """Return the intersection over union of detected and true objects in the face masks of a clip."""
    face = MeshShape().masks(head.views)
    mask = LightFinder().find(head.views, face)
    truth = head.clip.occluder_mask & face
    assert truth.any() and not (mask & ~face).any()
    return (mask & truth).sum() / (mask | truth).sum()


def test_most_of_a_microphone_is_found(occluded):
    assert overlap(occluded(MICROPHONE)) > 0.6


def test_a_part_of_a_hand_that_passes_is_found(occluded):
    """The hand covers the face in a third of the frames; one that stays for half of them is mostly missed."""
    assert overlap(occluded(HAND)) > 0.3


def test_a_speaking_face_without_an_object_has_hardly_any_occluder(talkers):
    for head in talkers:
        face = MeshShape().masks(head.views)
        mask = LightFinder().find(head.views, face)
        assert mask.sum() < 0.02 * face.sum()


def test_a_turning_head_is_not_mistaken_for_an_object(turning):
    face = MeshShape().masks(turning.views)
    assert LightFinder().find(turning.views, face).sum() < 0.02 * face.sum()


def test_a_clip_without_a_face_has_no_occluder(talkers):
    head = talkers[0]
    assert not LightFinder().find(head.views, np.zeros(head.views.frames.shape[:3], bool)).any()


def test_a_face_without_a_mesh_has_no_occluder(talkers):
    """A lower face is masked by landmarks alone, so it has a mask without a mesh."""
    views = talkers[0].views
    face = MeshShape().masks(views)
    lost = np.full_like(views.mesh, np.nan)
    assert not LightFinder().find(replace(views, mesh=lost, person=lost), face).any()
    assert not LightFinder().find(replace(views, mesh=lost), face).any()


def test_a_head_without_a_usual_view_has_no_occluder(talkers):
    """The head is turned to one side, is lost, and is turned to the other side: no frame is near the median view."""
    views, cos, sin = talkers[0].views, np.cos(np.radians(40)), np.sin(np.radians(40))
    mesh = np.full_like(views.mesh[:44], np.nan)
    for frames, side in ((slice(0, 16), -sin), (slice(28, 44), sin)):
        mesh[frames] = views.mesh[0] @ np.array([[cos, 0, -side], [0, 1, 0], [side, 0, cos]])
    mesh += views.frames.shape[1] / 2 - mesh.mean(axis=1, keepdims=True)
    turned = replace(views, frames=views.frames[:44], landmarks=views.landmarks[:44], mesh=mesh)
    assert not LightFinder().find(turned, MeshShape().masks(turned)).any()
