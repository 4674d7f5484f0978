"""The readout of mouth opening: its patch, its invariances, training on drawn faces, and its files."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from xdub.errors import UserError
from xdub.evaluate.opening import round_trip, score_readout
from xdub.fit.readout import train_readout
from xdub.geometry import CodecGeometry
from xdub.perception.mouth_readout import PATCH, MouthReadout, mouth_patches, patch_boxes, shake


def face_landmarks(
    num_frames: int, unit: float, middle: tuple[float, float], roll: float = 0.0
) -> np.ndarray:
    """Return [F,68,2]: eyes `unit` apart around `middle`, nose base below, others far away; turned by roll, rad."""
    points = np.full((68, 2), 1e4)
    points[36], points[39], points[42], points[45] = (-0.7, 0), (-0.3, 0), (0.3, 0), (0.7, 0)
    points[33] = (0, 0.76)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return np.repeat((points @ turn.T * unit + middle)[None], num_frames, 0).astype(np.float32)


def drawn(seed: int, num_frames: int = 21, size: int = 80) -> SimpleNamespace:
    """Draw a flat face with a dark mouth that opens and shuts, and landmarks of its eyes and nose."""
    random = np.random.default_rng(seed)
    opening = random.uniform(0, 0.5, num_frames).astype(np.float32)
    unit, middle = size * random.uniform(0.33, 0.4), size * random.uniform(0.45, 0.55, 2) - (0, size * 0.3)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    skin, inside = random.integers(130, 230, 3).tolist(), random.integers(10, 70, 3).tolist()
    for frame, gap in zip(frames, opening, strict=True):
        frame[:] = skin
        centre = tuple(int(v * 16) for v in (middle[0], middle[1] + unit * (1.15 + gap / 4)))
        axes = (int(unit * 0.35 * 16), max(1, int(unit * gap / 2 * 16)))
        cv2.ellipse(frame, centre, axes, 0, 0, 360, inside, -1, cv2.LINE_AA, shift=4)
    return SimpleNamespace(frames=frames, landmarks=face_landmarks(num_frames, unit, middle), opening=opening)


class Blur:
    """A codec that averages blocks of two pixels."""

    geometry = CodecGeometry(channels=3, time=1, space=2)

    def encode(self, video):
        return torch.nn.functional.avg_pool3d(video, (1, 2, 2))

    def decode(self, z):
        return z.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture(scope="module")
def trained() -> MouthReadout:
    return train_readout([drawn(seed) for seed in range(12)], codec=Blur(), steps=100, batch=(6, 8))


def test_a_short_training_reads_unseen_faces_with_and_without_a_codec(trained):
    faces = [drawn(seed) for seed in range(100, 106)]
    for codec in (None, Blur()):
        scores = score_readout(trained, faces, codec)
        assert scores.mean > 0.9 and scores.clips == 6
        assert scores.mean_error < 0.1


def test_the_reading_is_the_same_at_another_size_and_after_a_turn(trained):
    face = drawn(7)
    for scale, roll in ((3.2, 0.0), (1.0, 0.3)):
        size = round(80 * scale)
        matrix = cv2.getRotationMatrix2D((39.5, 39.5), -np.degrees(roll), scale)
        matrix[:, 2] += size / 2 - 40
        frames = np.stack(
            [cv2.warpAffine(f, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE) for f in face.frames]
        )
        moved = ((face.landmarks - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5).astype(np.float32)
        read = trained.read(frames, moved)
        np.testing.assert_allclose(read, trained.read(face.frames, face.landmarks), atol=0.12)
        assert np.corrcoef(read, face.opening)[0, 1] > 0.95


def test_landmarks_of_lips_and_jaw_do_not_change_the_reading(trained):
    face = drawn(8)
    other = face.landmarks.copy()
    other[:, :17] = other[:, 48:] = np.nan
    np.testing.assert_array_equal(trained.read(face.frames, other), trained.read(face.frames, face.landmarks))


def test_frames_without_a_face_read_nan(trained):
    face = drawn(9)
    face.landmarks[3] = np.nan
    read = trained.read(face.frames, face.landmarks)
    assert np.isnan(read[3]) and np.isfinite(np.delete(read, 3)).all()
    assert np.isnan(trained.read(face.frames, np.full_like(face.landmarks, np.nan))).all()


def test_the_patch_is_upright_and_below_the_nose():
    landmarks = face_landmarks(
        1, unit=30.0, middle=(50.0, 40.0), roll=np.pi / 2
    )  # the head is turned by 90 degrees
    centre, half, along = patch_boxes(landmarks)
    np.testing.assert_allclose(centre[0], (50 - 30 * (0.76 + 0.45), 40), atol=1e-4)
    np.testing.assert_allclose(along[0], (0, 1), atol=1e-6)
    frames = np.zeros((1, 80, 100, 3), np.uint8)
    frames[0, :, :8] = 255  # towards the chin
    patches, has_face = mouth_patches(frames, landmarks)
    assert has_face.all() and patches.shape == (1, PATCH, PATCH, 3)
    assert patches[0, -6:].min() > 200 and patches[0, :16].max() == 0


def test_a_plain_patch_is_an_exact_cut_of_the_picture():
    frames = np.random.default_rng(0).integers(0, 256, (1, 60, 60, 3), dtype=np.uint8)
    unit = PATCH / 2 / 0.64
    landmarks = face_landmarks(1, unit, (30.0, 30 - unit * (0.76 + 0.45)))
    patches, _ = mouth_patches(frames, landmarks)
    np.testing.assert_array_equal(patches[0], frames[0, 14:46, 14:46])


def test_augmentation_keeps_pictures_in_range_and_depends_on_its_generator_alone():
    wide = torch.rand(5, 3, 40, 40)
    first, second = (shake(wide, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (5, 3, PATCH, PATCH) and first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("count", [1, 4, 5, 6])
def test_a_round_trip_keeps_the_number_of_frames(count):
    class Causal:
        geometry = CodecGeometry(channels=3, time=4, space=1)

        def encode(self, video):
            assert video.shape[2] % 4 == 1
            return video

        decode = encode

    frames = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(round_trip(frames, Causal()), frames)


def test_a_readout_that_is_saved_and_loaded_has_nearly_the_same_readings_and_is_small(trained, tmp_path):
    trained.save(tmp_path / "readout.safetensors")
    assert (tmp_path / "readout.safetensors").stat().st_size < 1_000_000
    loaded = MouthReadout.load(tmp_path / "readout.safetensors")
    face = drawn(10)
    a, b = (net.read(face.frames, face.landmarks) for net in (trained, loaded))
    np.testing.assert_allclose(a, b, atol=5e-3)


def test_missing_files_and_wrong_arguments_are_explained(tmp_path):
    with pytest.raises(UserError, match="no such readout"):
        MouthReadout.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="known mouth opening"):
        train_readout([SimpleNamespace(frames=None, landmarks=None, opening=None)])
    with pytest.raises(ValueError, match="^frames must be uint8"):
        mouth_patches(np.zeros((1, 8, 8, 3)), np.zeros((1, 68, 2)))
    with pytest.raises(ValueError, match="^landmarks must be"):
        mouth_patches(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 68, 2)))
