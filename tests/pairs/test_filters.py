"""The filters on rendered speakers, their twins, and every kind of bad pair."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.config import EMBEDDERS, PerceptionConfig
from xdub.data.clip import Clip
from xdub.pairs.composite import composite
from xdub.pairs.filters import compare_landmarks, identity_check, judge
from xdub.pairs.judges import Judges, load_judges
from xdub.render import RenderedPair, make_clips

SAME_PERSON = EMBEDDERS[PerceptionConfig().identity].threshold
"""Threshold of the default embedder."""


@pytest.fixture(scope="module")
def speakers() -> list[RenderedPair]:
    """Two people without occluders, a second each."""
    pairs = []
    for pair in make_clips(3, range(4, 40, 4), size=80, frames=25, full_size=192):
        if not pair.clip.occluder_mask.any():
            pairs.append(pair)
        if len(pairs) == 2:
            break
    return pairs


@pytest.fixture(scope="module", params=["landmarks", "readout"])
def instrument(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def judges(instrument: str) -> Judges:
    return load_judges(PerceptionConfig(mouth=instrument))


@pytest.fixture()
def failed(speakers, judges, instrument):
    """Function that returns the check that rejects V' for the first speaker's clip, None for a kept pair."""

    def first_failure(reference: np.ndarray, clip: Clip = speakers[0].clip) -> str | None:
        verdict, scores = judge(
            clip,
            np.ascontiguousarray(reference),
            embed=judges.embed,
            read_mouth=judges.read_mouth,
            identity_threshold=SAME_PERSON,
            mouth_threshold={"landmarks": 1.0, "readout": 0.6}[instrument],
        )
        assert all(np.isfinite(value) for value in scores.values())
        return None if verdict.failed is None else verdict.failed.name

    return first_failure


def test_a_twin_passes_with_each_method_to_compare_mouths(speakers, failed) -> None:
    for pair in speakers:
        assert failed(pair.twin.frames, pair.clip) is None


def test_the_clip_itself_is_rejected_for_its_lips(speakers, failed) -> None:
    assert failed(speakers[0].clip.frames) == "mouth_distance"


def test_a_reference_that_is_not_aligned_with_the_clip_is_rejected(speakers, failed) -> None:
    one, other = speakers
    assert failed(other.clip.frames) == "outside"
    assert failed(one.twin.frames[:, :, ::-1]) == "outside"
    for shift, axis in ((1, 2), (-1, 1), (2, 1), (5, 2)):
        assert failed(np.roll(one.twin.frames, shift, axis)) in ("outside", "shift")


def test_a_late_or_early_twin_is_rejected(speakers, failed) -> None:
    twin = speakers[0].twin.frames
    assert failed(np.concatenate([twin[:1], twin[:-1]])) == "delay"
    assert failed(np.concatenate([twin[2:], twin[-2:]])) == "delay"


def test_scores_hold_both_alignments_if_there_are_landmarks(speakers, judges, instrument) -> None:
    one, settings = speakers[0], {"identity_threshold": SAME_PERSON, "mouth_threshold": 0.5}
    for truth in (None, one.twin.landmarks):
        _, scores = judge(
            one.clip,
            one.twin.frames,
            embed=judges.embed,
            read_mouth=judges.read_mouth,
            true_landmarks=truth,
            **settings,
        )
        # The readout needs no alignment.
        aligned = truth is not None or instrument == "landmarks"
        assert ("mouth_distance_rigid" in scores) == aligned
        assert not aligned or scores["mouth_distance_rigid"] > scores["mouth_distance"] > 0.5


def test_broken_pictures_are_rejected_before_a_network_runs(speakers, failed) -> None:
    clip = speakers[0].clip

    def pasted(face: np.ndarray) -> np.ndarray:
        return composite(clip.frames, face, clip.face_mask, clip.occluder_mask, 2.0)

    noise = np.random.default_rng(0).integers(0, 256, clip.frames.shape)
    assert failed(pasted(clip.frames * 0)) == "black"
    assert failed(pasted(noise)) == "noise"
    once = pasted(clip.frames)
    once[5] = pasted(clip.frames * 0)[5]
    assert failed(once) == "black"


def test_a_face_that_stands_still_on_a_moving_head_is_rejected(speakers, failed) -> None:
    clip = speakers[0].clip
    moving = np.stack([np.roll(clip.frames[0], n, axis=1) for n in range(clip.num_frames)])
    values = {name: getattr(clip, name) for name in clip.__dataclass_fields__}
    mask = np.zeros_like(clip.face_mask)
    mask[:, 30:70, 20:60] = True
    still = Clip(**(values | {"frames": moving, "face_mask": mask}))
    assert failed(np.where(mask[..., None], moving[:1], moving), still) == "frozen"


def test_identity_separates_another_person_from_a_twin(speakers, judges) -> None:
    one, other = speakers

    def vectors(clip: Clip) -> np.ndarray:
        return judges.embed(clip.frames[::8], clip.landmarks[::8])

    assert identity_check(vectors(one.clip), vectors(one.twin), SAME_PERSON).passed
    assert not identity_check(vectors(one.clip), vectors(other.clip), SAME_PERSON).passed
    values = {name: getattr(one.clip, name) for name in one.clip.__dataclass_fields__}
    # The mask covers the picture, so `outside` cannot reject the pair.
    everywhere = Clip(**(values | {"face_mask": np.ones_like(one.clip.face_mask)}))
    verdict, _ = judge(
        everywhere,
        other.clip.frames,
        embed=judges.embed,
        read_mouth=judges.read_mouth,
        identity_threshold=SAME_PERSON,
        mouth_threshold=1.0,
    )
    assert verdict.failed is not None and verdict.failed.name == "identity"


def test_both_alignments_are_measured_and_the_corners_of_the_mouth_absorb_motion(speakers) -> None:
    landmarks = speakers[0].clip.landmarks
    lower = landmarks.copy()
    lower[:, 48:68, 1] += (
        3 * np.linalg.norm(landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1), axis=-1)[:, None] / 35.2
    )
    reading = compare_landmarks(landmarks, lower)
    assert reading.distance < 0.6 * reading.rigid
    assert reading.rigid == pytest.approx(3.0, rel=0.25)
    lost = lower.copy()
    lost[:10] = np.nan
    assert compare_landmarks(landmarks, lost).readable == pytest.approx(15 / 25)
    assert np.isnan(compare_landmarks(landmarks, lost * np.nan).distance)
