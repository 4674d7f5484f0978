"""MobileFaceNet in torch: equal to the original, differentiable, and strict about its file."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xdub.config import PerceptionConfig
from xdub.errors import UserError
from xdub.perception.identity import mobilefacenet
from xdub.perception.identity.load import load_identity
from xdub.perception.identity.mobilefacenet import MobileFaceNetIdentity
from xdub.perception.registry import fetch
from xdub.perception.tflite import read_tflite

GOLDEN = [
    [0.05942, -0.15509, -0.51307, 1.90259, -3.38840, 0.23435, -0.35436, 2.70106]
    + [-0.60997, 2.88973, -0.13031, -0.14347, -1.11081, -0.05914, 0.34603, 2.20885]
    + [0.33189, 0.04521, -4.00306, -3.58781, -1.70925, -0.07589, -2.32890, 0.03928],
    [-0.17848, -2.63862, -0.30944, 2.10881, -0.48520, 0.18271, -0.21557, 1.23934]
    + [-0.36762, 2.00609, -0.02705, 0.29007, -0.63778, 0.00778, 0.37928, 0.77235]
    + [0.28678, -1.54032, -3.43140, -1.23655, -1.27757, -0.05423, -0.52466, 2.60944],
]
"""Every eighth output of the original file for the two pictures of `pattern`, run by ai-edge-litert 2.3.0."""
NORMS = [21.61629, 22.276836]
"""Norms of all 192 outputs."""


@pytest.fixture(scope="module")
def file() -> Path:
    return fetch("identity_mobilefacenet")


@pytest.fixture(scope="module")
def network(file) -> MobileFaceNetIdentity:
    return MobileFaceNetIdentity.load(file).eval().requires_grad_(False)


def pattern() -> torch.Tensor:
    """Return two pictures [2, 3, 112, 112] in [0, 1]."""
    ramp = torch.arange(2 * 3 * 112 * 112, dtype=torch.float64).reshape(2, 3, 112, 112)
    return (0.5 + 0.5 * torch.sin(ramp * 0.01) * torch.cos(ramp * 0.00037)).float()


def test_the_outputs_equal_those_of_the_original(network):
    vectors = network.embed_chips(pattern())
    assert vectors.shape == (2, 192)
    assert np.abs(vectors[:, ::8].numpy() - np.array(GOLDEN)).max() < 1e-4
    assert vectors.norm(dim=1).numpy() == pytest.approx(NORMS, abs=1e-3)


def test_the_network_is_the_default_embedder(heads):
    network = load_identity(PerceptionConfig())
    assert isinstance(network, MobileFaceNetIdentity) and not network.training


def test_other_people_are_far_from_one_person_in_another_light_and_size(network, heads):
    one, other = ((pair.full[::8], pair.full_landmarks[::8]) for pair in heads)
    source, stranger = network.embed(*one), network.embed(*other)
    assert np.allclose(np.linalg.norm(source, axis=1), 1, atol=1e-5)
    small = np.ascontiguousarray(one[0][:, ::2, ::2])
    for same in (
        network.embed((one[0] * 0.6).astype(np.uint8), one[1]),
        network.embed(small, one[1] / 2),
    ):
        assert float((source * same).sum(1).min()) > 0.85
    assert float((source @ stranger.T).max()) < 0.75


def test_crops_without_landmarks_show_who_it_is_at_any_crop_scale(network, heads):
    from xdub.data.transforms import crop, crop_boxes

    try:
        # A crop of scale 0.8 has no brows, so its embedding differs from that of the whole face.
        for scale, least in ((1.0, 0.8), (0.8, 0.5)):
            network.crop_scale = scale
            crops = [crop(p.full[::8], crop_boxes(p.full_landmarks, scale=scale)[::8], 128) for p in heads]
            twin = crop(heads[0].twin_full[::8], crop_boxes(heads[0].full_landmarks, scale=scale)[::8], 128)
            one, other, same = (network.embed(frames) for frames in (*crops, twin))
            whole = network.embed(heads[0].full[::8], heads[0].full_landmarks[::8])
            assert float((one * whole).sum(1).min()) > least
            assert float((one * same).sum(1).mean()) > 0.9 > 0.7 > float((one * other).sum(1).mean())
    finally:
        network.crop_scale = 1.0


def test_crops_around_all_landmarks_show_who_it_is_without_landmarks(heads):
    from xdub.config import load_recipe
    from xdub.data.face_boxes import face_boxes
    from xdub.data.transforms import crop
    from xdub.perception.faces import FaceTracker

    video = load_recipe("tiny", ["video.crop=landmark_box", "video.crop_scale=1.0"]).video
    network, crops = load_identity(PerceptionConfig(), video), []
    for pair in heads:
        with FaceTracker() as tracker:
            track = tracker.track(pair.full[:9])
        crops.append(crop(pair.full[:9:4], face_boxes(track, slice(0, 9, 4), video), 128))
    one, other = (network.embed(frames) for frames in crops)
    whole = network.embed(heads[0].full[:9:4], heads[0].full_landmarks[:9:4])
    assert float((one * whole).sum(1).min()) > 0.8 > 0.7 > float((one * other).sum(1).mean())
    # Read as crops of the other kind, the same pictures have another embedding.
    assert float((load_identity(PerceptionConfig()).embed(crops[0]) * whole).sum(1).max()) < 0.7


def test_descent_on_the_pixels_brings_a_face_closer_to_another(network, heads):
    one, other = (
        torch.from_numpy(pair.clip.frames[:1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        for pair in heads
    )
    goal, faces = network(other), one.clone().requires_grad_()
    start = float(F.cosine_similarity(network(one), goal))
    for _ in range(5):
        (gradient,) = torch.autograd.grad((1 - F.cosine_similarity(network(faces), goal)).sum(), faces)
        assert torch.isfinite(gradient).all()
        faces = (faces - 0.01 * gradient.sign()).detach().requires_grad_()
    assert float(F.cosine_similarity(network(faces.detach()), goal)) > start + 0.1


def test_a_missing_or_foreign_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no.tflite: cannot be read \(No such file"):
        MobileFaceNetIdentity.load(tmp_path / "no.tflite")
    (tmp_path / "zip.tflite").write_bytes(b"PK\x03\x04" * 9)
    with pytest.raises(UserError, match="zip.tflite: not a TensorFlow Lite file"):
        MobileFaceNetIdentity.load(tmp_path / "zip.tflite")


def test_a_graph_of_another_structure_is_refused(file, monkeypatch):
    graph = read_tflite(file)
    assert len(graph.operators) == 230
    first, second, *rest = graph.operators
    for operators, reason in (
        ((first, replace(second, kind="abs"), *rest), "operator 1 is abs"),
        ((replace(first, stride=1), second, *rest), "operator 0 has another stride"),
        ((first, replace(second, inputs=graph.inputs), *rest), "operator 1 is relu"),
        (graph.operators[:-1], "the graph ends after 229 operators"),
        ((*graph.operators, second), "the graph goes on after operator 229"),
    ):
        other = replace(graph, operators=tuple(operators))
        monkeypatch.setattr(mobilefacenet, "read_tflite", lambda path, graph=other: graph)
        with pytest.raises(UserError, match=f"x.tflite: not the MobileFaceNet of 112 px .{reason}"):
            MobileFaceNetIdentity.load("x.tflite")


def test_a_damaged_file_is_one_line_wherever_the_damage_is(file, tmp_path):
    data = file.read_bytes()
    damaged, errors = tmp_path / "damaged.tflite", 0
    for length in (0, 7, 8, 100, 5000, len(data) // 2, len(data) - 4000):
        damaged.write_bytes(data[:length])
        with pytest.raises(UserError, match="damaged.tflite: ") as caught:
            MobileFaceNetIdentity.load(damaged)
        assert "\n" not in str(caught.value)
    draw = random.Random(0)
    for _ in range(60):
        copy = bytearray(data)
        # The structure is at the ends of the file, the weights are in the middle.
        for _ in range(4):
            position = draw.choice([draw.randrange(8, 2000), len(data) - draw.randrange(1, 40_000)])
            copy[position] = draw.randrange(256)
        damaged.write_bytes(copy)
        try:
            MobileFaceNetIdentity.load(damaged)
        except UserError as error:
            errors += 1
            assert "\n" not in str(error)
    assert errors > 10
