"""FLAME and SMIRK: reading of their files, the head's joints, and masks with a fixed jaw."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xdub.errors import UserError
from xdub.masks.face_shape import FaceViews
from xdub.masks.flame import JAW, read_flame, rotations
from xdub.masks.flame_shape import FlameShape
from xdub.masks.mobilenet import large, small
from xdub.masks.smirk import Coefficients, load_smirk
from xdub.miniature.face import write_flame, write_smirk
from xdub.miniature.sizes import Sizes


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flame")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_flame(folder / "flame.npz", Sizes())
        write_smirk(folder / "smirk.pt", Sizes())
    return folder


class chumpy_array:
    """An object that pickles as FLAME's own arrays do, under the name of a class that is not installed."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


class csc_matrix:
    """An object that pickles as scipy's sparse matrices did when FLAME was saved."""

    def __init__(self, matrix: np.ndarray) -> None:
        rows, columns = np.nonzero(matrix.T)[::-1]
        self.data, self.indices, self._shape = matrix[rows, columns], rows, matrix.shape
        self.indptr = np.concatenate([[0], np.cumsum((matrix != 0).sum(axis=0))])


def released(files: Path, path: Path) -> Path:
    """Write the arrays of the miniature in the form of `generic_model.pkl`."""
    with np.load(files / "flame.npz") as arrays:
        content = dict(arrays)
    regressor = np.where(np.abs(content["J_regressor"]) > 1e-6, content["J_regressor"], 0)
    content |= {"J_regressor": csc_matrix(regressor), "bs_type": "lrotmin"}
    content |= {name: chumpy_array(content[name]) for name in ("v_template", "shapedirs")}
    text = pickle.dumps(content, protocol=0)
    module = f"c{__name__}\n".encode()
    text = text.replace(module + b"chumpy_array", b"cchumpy.ch\nCh")
    text = text.replace(module + b"csc_matrix", b"cscipy.sparse.csc\ncsc_matrix")
    path.write_bytes(text)
    return path


def test_the_released_pickle_has_the_arrays_of_the_npz_and_imports_neither_chumpy_nor_scipy(files, tmp_path):
    own, theirs = read_flame(files / "flame.npz"), read_flame(released(files, tmp_path / "generic_model.pkl"))
    for name in ("template", "components", "pose_components", "weights"):
        assert torch.equal(getattr(own, name), getattr(theirs, name)), name
    assert torch.allclose(own.regressor, theirs.regressor, atol=1e-5) and own.parents == (-1, 0, 1, 1, 1)


def test_a_pickle_that_names_other_code_is_refused_and_runs_nothing(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    for number, value in enumerate((Attack(), {"v_template": Attack()}, [1, 2], np.float64)):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match="pickle of arrays|no mapping"):
            read_flame(path)
    assert not (tmp_path / "owned").exists()


def test_files_of_other_networks_are_refused_with_the_first_difference(files, tmp_path):
    with np.load(files / "flame.npz") as arrays:
        content = dict(arrays)
    for name, array, message in (
        ("weights", content["weights"][:, :3], r"weights is \[576, 3\], not \[576, 5\]"),
        ("posedirs", content["posedirs"] * np.nan, "not finite"),
        ("v_template", content["v_template"][:, :2], "no v_template"),
    ):
        np.savez(tmp_path / "other.npz", **(content | {name: array}))
        with pytest.raises(UserError, match=message):
            read_flame(tmp_path / "other.npz")
    torch.save({"pose_encoder.x": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a SMIRK checkpoint"):
        load_smirk(tmp_path / "other.pt")


def test_the_backbones_have_the_sizes_of_the_published_ones():
    counts = [sum(weight.numel() for weight in network.parameters()) for network in (small(), large())]
    assert counts == [428_888, 1_413_208] and (small().width, large().width) == (576, 960)
    names = set(small().state_dict())
    assert {"conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.1.0.conv_pwl.weight"} <= names
    # A convolution with stride 2 pads an even picture on the right and below alone.
    stem = small().conv_stem
    picture = torch.zeros(1, 3, 224, 224)
    picture[..., 223, 223] = 1
    assert stem(picture).shape == (1, 16, 112, 112)
    assert torch.allclose(stem(picture)[0, :, 111, 111], stem.weight.sum(dim=1)[:, 1, 1])


def test_the_joints_move_their_parts_rigidly_and_the_jaw_opens_downwards(files):
    flame, none = read_flame(files / "flame.npz"), torch.zeros(1, 3)
    rest = flame.vertices(none, none, torch.zeros(1, 5, 3))[0]
    assert torch.allclose(rest, flame.template, atol=1e-6)
    pose = torch.zeros(1, 5, 3)
    pose[0, 0] = torch.tensor([0.1, 0.7, -0.2])
    turned = replace(flame, pose_components=torch.zeros_like(flame.pose_components)).vertices(
        none, none, pose
    )[0]
    root = (flame.regressor @ flame.template)[0]
    assert torch.allclose(turned, (rest - root) @ rotations(pose[:, 0])[0].T + root, atol=1e-5)
    pose = torch.zeros(1, 5, 3)
    pose[0, JAW, 0] = 0.4
    moved = flame.vertices(none, none, pose)[0] - rest
    jaw = flame.weights[:, JAW] > 0.9
    assert moved[jaw][:, 1].mean() < -0.003 and moved[flame.weights[:, JAW] == 0].abs().max() < 2e-3
    face = flame.face_vertices()
    assert jaw.numpy()[face].any() and (flame.template[face, 2] > 0).all()


class Steady(torch.nn.Module):
    """An encoder that sees the same head with another jaw in every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[torch.Tensor] = []

    def forward(self, pictures: torch.Tensor) -> Coefficients:
        self.pictures.append(pictures)
        count = len(pictures)
        jaw = torch.zeros(count, 3)
        jaw[:, 0] = torch.linspace(0, 0.6, count)
        zeros = torch.zeros(count, 300)
        camera = torch.tensor([[7.0, 0.0, 0.0]]).repeat(count, 1)
        return Coefficients(zeros, zeros[:, :50], torch.zeros(count, 3), jaw, camera)


def views(count: int = 6, size: int = 64) -> FaceViews:
    """Return views of a face in the middle of grey crops, without a face in the last frame."""
    random = np.random.default_rng(0)
    mesh = np.zeros((count, 478, 3), np.float32)
    mesh[..., :2] = size / 2 + 15 * random.uniform(-1, 1, (478, 2))
    mesh[-1] = np.nan
    frames = np.full((count, size, size, 3), 128, np.uint8)
    return FaceViews(frames=frames, landmarks=mesh[:, :68, :2], mesh=mesh, person=mesh)


def test_the_mask_keeps_the_pose_and_replaces_the_jaw(files):
    encoder = Steady()
    shape = FlameShape(read_flame(files / "flame.npz"), encoder, torch.device("cpu"))
    masks = shape.masks(views())
    assert encoder.pictures[0].shape == (5, 3, 224, 224) and 0.49 < encoder.pictures[0].mean() < 0.51
    assert not masks[-1].any() and masks[0].any()
    assert all(np.array_equal(mask, masks[0]) for mask in masks[1:5])
    own = shape.outline(views(), jaw=None)
    assert np.abs(own[4] - own[0]).max() > 1
    y, x = np.nonzero(masks[0])
    assert abs(x.mean() - 32) < 2 and abs(y.mean() - 32) < 12


def test_the_miniature_checkpoint_fits_pictures(files):
    shape = FlameShape(read_flame(files / "flame.npz"), load_smirk(files / "smirk.pt"), torch.device("cpu"))
    masks = shape.masks(views())
    assert masks[:5].any(axis=(1, 2)).all() and not masks[5].any()
