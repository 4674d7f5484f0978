"""Identity networks: they read their files, align faces of any size, separate people and pass gradients."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from xdub.config import PerceptionConfig
from xdub.errors import UserError
from xdub.perception.identity.arcface import ArcFaceIdentity
from xdub.perception.identity.base import cosine, distance
from xdub.perception.identity.dlib import DlibIdentity, _add, _packed_int, _tensor_header
from xdub.perception.identity.load import load_identity


@pytest.fixture(scope="module")
def dlib() -> DlibIdentity:
    return DlibIdentity.load().eval().requires_grad_(False)


def test_embeddings_of_one_person_are_closer_than_those_of_two(dlib, heads):
    vectors = [dlib.embed(pair.full[::8], pair.full_landmarks[::8]) for pair in heads]
    assert np.allclose(np.linalg.norm(vectors[0], axis=1), 1, atol=1e-5)
    same = min(float((v[0] * v[1:]).sum(axis=1).min()) for v in vectors)
    other = float((vectors[0] @ vectors[1].T).max())
    assert same > other


def test_the_embedding_hardly_depends_on_the_size_of_the_picture(dlib, heads):
    frame, points = heads[0].full[0], heads[0].full_landmarks[:1]
    base = dlib.embed(frame[None], points)
    double = cv2.resize(frame, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert float((base * dlib.embed(double[None], points * 2)).sum()) > 0.995


def test_face_crops_need_no_landmarks_at_any_crop_scale(dlib, heads):
    from xdub.data.transforms import crop, crop_boxes

    pair = heads[0]
    base = dlib.embed(pair.full[:1], pair.full_landmarks[:1])
    for scale in (1.0, 0.8):
        boxes = crop_boxes(pair.full_landmarks, scale=scale)[:1]
        dlib.crop_scale = scale
        assert float((base * dlib.embed(crop(pair.full[:1], boxes, 128))).sum()) > 0.96
    dlib.crop_scale = 1.0


def test_the_gradient_reaches_the_pixels(dlib, heads):
    faces = torch.from_numpy(heads[0].clip.frames[:1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    faces.requires_grad_()
    (1 - nn.functional.cosine_similarity(dlib(faces), torch.ones(1, 128))).sum().backward()
    assert faces.grad.abs().mean() > 0 and torch.isfinite(faces.grad).all()


def test_frames_without_landmarks_are_nan_and_do_not_affect_the_others(dlib, heads):
    points = heads[0].full_landmarks[:2].copy()
    points[1] = np.nan
    vectors = dlib.embed(heads[0].full[:2], points)
    assert np.isfinite(vectors[0]).all() and np.isnan(vectors[1]).all()


def test_distance_is_euclidean_and_cosine_ignores_length():
    a, b = np.array([[3.0, 4.0]]), np.array([[6.0, 8.0]])
    assert distance(a, b) == pytest.approx(5) and cosine(a, b) == pytest.approx(1)


def dat_bytes(network: DlibIdentity) -> bytes:
    """Serialize the parameters as dlib does, between other data."""
    out = [b"dlib says hello"]
    for layer in network._layers():
        for parts in layer:
            flat = torch.cat([part.detach().flatten() for part in parts])
            sizes = (flat.numel(), 1)
            if parts[0] is network.fc.weight:
                flat, sizes = parts[0].detach().T.flatten(), (256, 128)
            out += [_tensor_header(*sizes), flat.numpy().astype("<f4").tobytes(), b"\x01\x02details"]
    return b"".join(out)


def test_parameters_are_read_from_the_bytes_of_a_dat_file():
    torch.manual_seed(0)
    source, target = DlibIdentity(), DlibIdentity()
    target.read(dat_bytes(source), "x.dat")
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name
    with pytest.raises(UserError, match="x.dat: not dlib"):
        target.read(dat_bytes(source)[:-100_000], "x.dat")


def test_dlibs_sum_of_unequal_tensors_fills_with_zeros():
    a, b = torch.ones(1, 3, 4, 4), torch.ones(1, 2, 5, 4)
    total = _add(a, b)
    assert total.shape == (1, 3, 5, 4)
    assert (
        total[0, 0, 0, 0] == 2
        and total[0, 2, 0, 0] == 1
        and total[0, 0, 4, 0] == 1
        and total[0, 2, 4, 0] == 0
    )
    assert _packed_int(2) == b"\x01\x02" and _packed_int(300) == b"\x02\x2c\x01"


def test_arcface_reads_a_backbone_of_any_depth(tmp_path):
    torch.manual_seed(0)
    source = ArcFaceIdentity((1, 2, 1, 1)).eval()
    torch.save(source.state_dict(), tmp_path / "backbone.pth")
    config = PerceptionConfig(identity="arcface", identity_path=str(tmp_path / "backbone.pth"))
    loaded = load_identity(config)
    chips = torch.rand(2, 3, 112, 112)
    assert torch.equal(loaded.embed_chips(chips), source.embed_chips(chips)) and not loaded.training
    assert loaded(torch.rand(1, 3, 80, 80) * 2 - 1).shape == (1, 512)


def test_a_bad_arcface_file_is_a_user_error_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="identity_path"):
        load_identity(PerceptionConfig(identity="arcface"))
    with pytest.raises(UserError, match="no such file"):
        load_identity(PerceptionConfig(identity="arcface", identity_path=str(tmp_path / "no.pth")))
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be read as weights"):
        ArcFaceIdentity.load(tmp_path / "junk.pth")
    torch.save({"head.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not an ArcFace backbone"):
        ArcFaceIdentity.load(tmp_path / "other.pth")
