"""FLAME: a head of 5,023 vertices with shape, expression and the pose of five joints, read from its released file.

The joints are the root, the neck, the jaw and both eyes. Coordinates are metres; x points to the right of a picture of
the face, y up, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xdub.errors import UserError
from xdub.masks.restricted_pickle import read_arrays

NECK, JAW, EYES = 1, 2, (3, 4)
"""Numbers of joints."""
JOINTS = 5
"""Number of joints."""
SHAPES = 300
"""Shape components, which precede the expression components in the file."""
FOREHEAD = 1.2
"""Height of the face above the eyes, in distances between the eyes."""


@dataclass(frozen=True, eq=False)
class Flame:
    """The arrays of a FLAME file, V vertices."""

    template: Tensor
    """[V, 3]"""
    components: Tensor
    """[V, 3, S + E], shape, then expression"""
    shapes: int
    """Number of shape components S."""
    pose_components: Tensor
    """[V, 3, 36], corrections by the entries of the joints' rotations"""
    regressor: Tensor
    """[5, V], joints from vertices"""
    parents: tuple[int, ...]
    """Parent of each joint; -1 for the root."""
    weights: Tensor
    """[V, 5], share of each joint in a vertex"""

    def vertices(self, shape: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """Return vertices [F, V, 3] for coefficients [F, <= S], [F, <= E] and axis-angle poses [F, 5, 3]."""
        count = len(pose)
        end = self.shapes + expression.shape[1]
        used = torch.cat(
            [self.components[..., : shape.shape[1]], self.components[..., self.shapes : end]], dim=2
        )
        shaped = self.template + torch.einsum("vck,fk->fvc", used, torch.cat([shape, expression], dim=1))
        joints = torch.einsum("jv,fvc->fjc", self.regressor, shaped)
        turns = rotations(pose.reshape(-1, 3)).reshape(count, JOINTS, 3, 3)
        bends = (turns[:, 1:] - torch.eye(3, dtype=turns.dtype)).reshape(count, -1)
        posed = shaped + torch.einsum("vck,fk->fvc", self.pose_components, bends)
        moved = self._transforms(turns, joints)
        # A vertex moves with the weighted mean of its joints' rigid motions.
        blended = torch.einsum("vj,fjab->fvab", self.weights, moved)
        return torch.einsum("fvab,fvb->fva", blended[..., :3], posed) + blended[..., 3]

    def _transforms(self, turns: Tensor, joints: Tensor) -> Tensor:
        """Return the motion [F, 5, 3, 4] of each joint's part relative to the resting head."""
        world: list[tuple[Tensor, Tensor]] = []
        for joint, parent in enumerate(self.parents):
            turn, position = turns[:, joint], joints[:, joint]
            if parent >= 0:
                before, origin = world[parent]
                offset = torch.einsum("fab,fb->fa", before, position - joints[:, parent])
                turn, position = before @ turn, origin + offset
            world.append((turn, position))
        parts = [
            torch.cat([turn, (position - torch.einsum("fab,fb->fa", turn, joints[:, n]))[..., None]], dim=2)
            for n, (turn, position) in enumerate(world)
        ]
        return torch.stack(parts, dim=1)

    def face_vertices(self) -> np.ndarray:
        """Return the numbers of the vertices of the face: before the jaw's axis, from the chin to the forehead.

        FLAME's own file of regions is a separate download, and the mask needs the outline of the face alone.
        """
        joints = (self.regressor @ self.template).numpy()
        y, z = self.template[:, 1].numpy(), self.template[:, 2].numpy()
        eyes = joints[list(EYES)]
        top = eyes[:, 1].mean() + FOREHEAD * float(np.linalg.norm(eyes[0] - eyes[1]))
        jaw = (self.weights[:, JAW] > 0.5).numpy()
        bottom = y[jaw].min() if jaw.any() else joints[NECK, 1]
        return np.flatnonzero((z > joints[JAW, 2]) & (y <= top) & (y >= bottom))


def rotations(axis_angles: Tensor) -> Tensor:
    """Return rotation matrices [N, 3, 3] of axis-angle vectors [N, 3] (Rodrigues)."""
    angle = axis_angles.norm(dim=1, keepdim=True).clamp(min=1e-8)
    x, y, z = (axis_angles / angle).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
    sin, cos = angle.sin()[..., None], angle.cos()[..., None]
    return torch.eye(3, dtype=axis_angles.dtype) + sin * cross + (1 - cos) * (cross @ cross)


def read_flame(path: str | Path) -> Flame:
    """Read FLAME's released .pkl, or an .npz with the same names, without running code of the file.

    Raise UserError if an array is missing, has another shape, or is not finite.
    """
    path = Path(path)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as FLAME's arrays ({error})") from error
    else:
        arrays = read_arrays(path)
    template = arrays.get("v_template")
    if template is None or template.ndim != 2 or template.shape[1] != 3:
        raise UserError(f"{path}: not a FLAME file: it has no v_template of vertices")
    count = len(template)
    expected = {
        "shapedirs": (count, 3, None),
        "posedirs": (count, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, count),
        "weights": (count, JOINTS),
        "kintree_table": (2, JOINTS),
    }
    for name, shape in expected.items():
        array = arrays.get(name)
        fits = array is not None and len(array.shape) == len(shape)
        if (
            array is None
            or not fits
            or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True))
        ):
            actual = "nothing" if array is None else list(array.shape)
            required = ", ".join("any" if n is None else str(n) for n in shape)
            raise UserError(f"{path}: not a FLAME file: {name} is {actual}, not [{required}]")
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} has values that are not finite; copy or download the file again")

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(arrays[name], np.float32))

    # The root's parent is stored as a large number.
    parents = [int(np.int64(n)) for n in arrays["kintree_table"][0]]
    order = tuple(parent if 0 <= parent < joint else -1 for joint, parent in enumerate(parents))
    components = tensor("shapedirs")
    return Flame(
        template=tensor("v_template"),
        components=components,
        shapes=min(SHAPES, components.shape[2]),
        pose_components=tensor("posedirs"),
        regressor=tensor("J_regressor"),
        parents=order,
        weights=tensor("weights"),
    )
