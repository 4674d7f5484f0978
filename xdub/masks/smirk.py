"""SMIRK: FLAME's coefficients and a camera from a picture of a face, with the weights of its release (paper B.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.masks.mobilenet import large, small
from xdub.perception.network_files import load_weights, read_state_dict

SIDE = 224
"""Side of a picture in px."""
MARGIN = 1.4
"""Side of a picture over the mean of width and height of the face's mesh."""
SHAPES, EXPRESSIONS = 300, 50
"""Numbers of coefficients."""
PREFIX = "smirk_encoder."
"""Beginning of the encoder's names in the released checkpoint, which also holds a generator."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """FLAME's coefficients of F pictures."""

    shape: Tensor
    """[F, 300]"""
    expression: Tensor
    """[F, 50]"""
    turn: Tensor
    """[F, 3], axis-angle of the head"""
    jaw: Tensor
    """[F, 3], axis-angle of the jaw; the first is its opening"""
    camera: Tensor
    """[F, 3], scale and shift of the orthographic projection to [-1, 1]"""


class _Pose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = small()
        self.pose_cam_layers = nn.Sequential(nn.Linear(self.encoder.width, 6))


class _Shape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = large()
        self.shape_layers = nn.Sequential(nn.Linear(self.encoder.width, SHAPES))


class _Expression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = large()
        # The outputs are the expression, two eyelids and three angles of the jaw.
        self.expression_layers = nn.Sequential(nn.Linear(self.encoder.width, EXPRESSIONS + 2 + 3))


class Smirk(nn.Module):
    """SMIRK's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.pose_encoder, self.shape_encoder = _Pose(), _Shape()
        self.expression_encoder = _Expression()

    def forward(self, pictures: Tensor) -> Coefficients:
        """Map pictures [F, 3, 224, 224] in [0, 1] to coefficients."""
        pose = self.pose_encoder.pose_cam_layers(self.pose_encoder.encoder(pictures))
        shape = self.shape_encoder.shape_layers(self.shape_encoder.encoder(pictures))
        part = self.expression_encoder
        face = part.expression_layers(part.encoder(pictures))
        jaw = face[:, EXPRESSIONS + 2 :]
        jaw = torch.cat([jaw[:, :1].relu(), jaw[:, 1:].clamp(-0.2, 0.2)], dim=1)
        return Coefficients(shape, face[:, :EXPRESSIONS], pose[:, :3], jaw, pose[:, 3:])


def load_smirk(path: str | Path) -> Smirk:
    """Load the released checkpoint, or its encoder alone. Raise UserError if weights are missing or differ in shape."""
    title = "a SMIRK checkpoint"
    state = read_state_dict(path, title)
    own = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    network = Smirk()
    if not own and not any(name.startswith("pose_encoder.") for name in state):
        raise UserError(f"{path}: not {title}: it has no {PREFIX}pose_encoder")
    load_weights(network, own or state, path, title)
    return network.eval().requires_grad_(False)


def smirk_boxes(mesh: np.ndarray) -> np.ndarray:
    """Return the squares [F, 3] (cx, cy, side) px of SMIRK's pictures around meshes [F, N, >= 2] px."""
    low, high = mesh[..., :2].min(axis=1), mesh[..., :2].max(axis=1)
    side = MARGIN * (high - low).mean(axis=1, keepdims=True)
    return np.concatenate([(low + high) / 2, side], axis=1)
