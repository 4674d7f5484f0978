"""Builders of the networks that fit a 3D face: FLAME's file, and SMIRK's checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from xdub.miniature.sizes import Sizes

JOINTS = (
    (0.0, -0.12, -0.02),
    (0.0, -0.07, -0.02),
    (0.0, -0.01, 0.02),
    (-0.032, 0.03, 0.06),
    (0.032, 0.03, 0.06),
)
"""Joints in metres: root, neck, jaw, eyes."""
PARENTS = (2**32 - 1, 0, 1, 1, 1)
"""Parents as FLAME's file has them."""
SIDES = 24
"""Rows and columns of vertices of the head, an ellipsoid."""


def write_flame(path: Path, sizes: Sizes) -> None:
    """Write FLAME's arrays for an ellipsoid with a jaw; the components are random and small."""
    lat, lon = np.meshgrid(np.linspace(-1.5, 1.5, SIDES), np.linspace(-np.pi, np.pi, SIDES, endpoint=False))
    flat = np.stack(
        [0.08 * np.sin(lon) * np.cos(lat), 0.12 * np.sin(lat), 0.1 * np.cos(lon) * np.cos(lat)], -1
    )
    template = flat.reshape(-1, 3)
    count = len(template)
    jaw = np.clip((-0.02 - template[:, 1]) / 0.03, 0, 1) * (template[:, 2] > 0.02)
    weights = np.stack([np.zeros(count), 1 - jaw, jaw, np.zeros(count), np.zeros(count)], axis=1)
    # The regressor gives the joints exactly for the template.
    regressor = np.array(JOINTS) @ np.linalg.pinv(template)
    random = torch.randn(count, 3, 400 + 36).numpy()
    np.savez(
        path,
        v_template=template,
        shapedirs=1e-4 * random[..., :400],
        posedirs=1e-4 * random[..., 400:],
        J_regressor=regressor,
        weights=weights,
        kintree_table=np.array([PARENTS, range(5)], np.uint32),
        f=_triangles(),
    )


def _triangles() -> np.ndarray:
    """Return the triangles [T, 3] between the rows and columns of vertices."""
    row, column = np.meshgrid(np.arange(SIDES), np.arange(SIDES - 1), indexing="ij")
    a, b = row * SIDES + column, (row + 1) % SIDES * SIDES + column
    corners = np.stack([a, b, a + 1, b, b + 1, a + 1], axis=-1)
    return corners.reshape(-1, 3).astype(np.uint32)


def write_smirk(path: Path, sizes: Sizes) -> None:
    """Write SMIRK's checkpoint at its true size; its camera shows the whole head."""
    from xdub.masks.smirk import PREFIX, Smirk

    network = Smirk()
    state = network.state_dict()
    camera = "pose_encoder.pose_cam_layers.0"
    state[f"{camera}.weight"] *= 0.001
    state[f"{camera}.bias"] = torch.tensor([0.0, 0.0, 0.0, 8.0, 0.0, 0.0])
    torch.save({PREFIX + name: value for name, value in state.items()}, path)
