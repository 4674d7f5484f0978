"""The head's geometry: regions, the shape of a person, and vertices and normals of a whole clip from ARKit curves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from xdub.render.assets import AXES, BUILD, MACRO, PARTS, SHAPES, Assets, load_assets

LANDMARKS = (
    5426, 5763, 5246, 5241, 737, 892, 916, 5292, 5296, 11898, 7618, 7594, 7457, 11850, 11854, 12360, 12025,
    3743, 3744, 3745, 896, 236, 7008, 7598, 10413, 10412, 10411, 132, 5063, 291, 5054, 354, 313, 317, 7076, 7115,
    4854, 4849, 4865, 4871, 4862, 1067, 11489, 11483, 11467, 11472, 7759, 11480,
    402, 448, 458, 455, 7217, 7208, 7162, 7235, 7241, 492, 486, 480, 3705, 471, 474, 7227, 10373, 7243, 493, 488,
)  # fmt: skip
"""Vertex numbers in base.obj of the iBUG-68 points.

The lips' points are the mesh's own border and contact vertices. The others were computed once: MediaPipe's landmarker
ran on a frontal rendering, and its points were snapped to the nearest visible vertices.
"""
PART = {name: number for number, name in enumerate(PARTS, start=1)}
"""Number of each part besides the body (0), as in `Assets.part`."""
EYES_CENTRE = np.array([0.0, 7.284, 1.245])
"""Middle between the eyeballs, the same for every person."""
PIVOT = np.array([0.0, 6.25, 0.15])
"""Point of the neck about which the head turns."""
CAVITY = np.array([0.0, 6.391, 1.028])
"""A point of the mouth, well behind the lips."""


@dataclass(frozen=True)
class Shape:
    """One person's geometry at rest: vertices [V,3] and eyeball centres [2,3], the right eye first."""

    vertices: np.ndarray
    eyes: np.ndarray


class Avatar:
    """The cut head with its regions and precomputed tables. All arrays are read-only."""

    def __init__(self, assets: Assets) -> None:
        self.assets = assets
        self.base = _refit(assets)
        self.part = assets.part
        self.head_weight = assets.head_weight
        lower = (assets.part == PART["lashes"]) & (assets.base[:, 1] < 7.275)
        self.triangles = assets.triangles[~lower[assets.triangles].any(1)]
        self.unit = {str(name): i for i, name in enumerate(assets.unit_names)}
        self.units = _speak_below_the_eyes(assets)
        new_id = {int(old): new for new, old in enumerate(assets.source_id)}
        self.landmark_ids = np.array([new_id[i] for i in LANDMARKS])

    @cached_property
    def solid(self) -> np.ndarray:
        """Triangles [T,3] of everything but the eyeballs and the long-hair proxy."""
        part = self.part[self.triangles[:, 0]]
        return self.triangles[~np.isin(part, [PART["eye_l"], PART["eye_r"], PART["hair"]])]

    @cached_property
    def eyeballs(self) -> np.ndarray:
        """Triangles of the two eyeballs."""
        return self.triangles[np.isin(self.part[self.triangles[:, 0]], [PART["eye_l"], PART["eye_r"]])]

    @cached_property
    def inside(self) -> np.ndarray:
        """[V] float: 0 on the outer skin, 1 in the mouth's cavity (behind the lips when they are shut)."""
        depth = np.zeros(len(self.base), np.float32)
        body = self.triangles[self.part[self.triangles[:, 0]] == 0]
        corners = self.base[body]
        near = (np.abs(corners[..., 0]).min(1) < 0.65) & (corners[..., 1].max(1) > 6.1)
        near &= (corners[..., 1].min(1) < 7.1) & (corners[..., 2].max(1) > 0.5)
        corners = corners[near]
        low, high = np.array([-0.6, 6.2, 0.2]), np.array([0.6, 7.0, 1.57])
        box = (self.part == 0) & ((self.base > low) & (self.base < high)).all(1)
        for index in np.flatnonzero(box):
            point = self.base[index]
            # The offset keeps the ray off the triangles' edges.
            a, b, c = (corners[:, k, :2] - point[:2] - 1e-4 for k in range(3))
            areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)
            hit = (areas > 0).all(1) | (areas < 0).all(1)
            if hit.any():
                weights = areas[hit] / areas[hit].sum(1, keepdims=True)
                depth[index] = max(0.0, float(((weights * corners[hit][..., 2]).sum(1)).max() - point[2]))
        # The skin behind the chin lies behind a surface, too, so only the vertices connected to the cavity count.
        behind = depth > 0.012
        edges = np.concatenate([body[:, [0, 1]], body[:, [1, 2]], body[:, [2, 0]]])
        edges = edges[behind[edges].all(1)]
        links = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (len(depth),) * 2)
        _, group = csgraph.connected_components(links, directed=False)
        seed = np.flatnonzero(box)[np.argmin(((self.base[box] - CAVITY) ** 2).sum(1))]
        share = np.clip((depth - 0.012) / 0.05, 0, 1)
        return np.where((group == group[seed]) & behind, share, 0).astype(np.float32)

    @cached_property
    def _gather(self) -> sparse.csr_matrix:
        """Matrix [V,T] that sums the normals of the triangles around each vertex."""
        triangles = self.solid
        rows = triangles.ravel()
        columns = np.repeat(np.arange(len(triangles)), 3)
        ones = np.ones(len(rows), np.float32)
        return sparse.csr_matrix((ones, (rows, columns)), (len(self.base), len(triangles)))

    def shape(self, macro: np.ndarray, build: np.ndarray, axes: np.ndarray, shapes: np.ndarray) -> Shape:
        """Compute a person's shape from a weight per target of MACRO, BUILD, AXES (signed) and SHAPES."""
        a = self.assets
        assert len(macro) == len(MACRO) and len(build) == len(BUILD) and len(axes) == len(AXES)
        assert len(shapes) == len(SHAPES)
        vertices = self.base.astype(np.float64)
        terms = [(macro, a.macro), (build, a.build), (shapes, a.shapes)]
        terms += [(np.maximum(axes, 0), a.axis_pos), (np.maximum(-axes, 0), a.axis_neg)]
        for weights, targets in terms:
            for index in np.flatnonzero(weights):
                vertices += weights[index] * targets[index].astype(np.float64)
        eyes = np.stack([_middle(vertices[self.part == PART[name]]) for name in ("eye_r", "eye_l")])
        scale = np.linalg.norm(self.eye_base[0] - self.eye_base[1]) / np.linalg.norm(eyes[0] - eyes[1])
        # Stature does not matter for a crop, so heads are brought to about one size; some of the variety stays.
        scale = 1 + 0.7 * (scale - 1)
        vertices = vertices * scale + (EYES_CENTRE - scale * eyes.mean(0))
        # The targets move skin and eyeballs apart by a millimetre or two, so each ball is seated behind its own lids.
        seats = []
        for name, lids, centre in zip(
            ("eye_r", "eye_l"), (slice(36, 42), slice(42, 48)), self.eye_base, strict=True
        ):
            ball, rim = self.part == PART[name], self.landmark_ids[lids]
            grown = np.linalg.norm(vertices[rim[3]] - vertices[rim[0]]) / np.linalg.norm(
                self.base[rim[3]] - self.base[rim[0]]
            )
            seat = vertices[rim].mean(0) + grown * (centre - self.base[rim].mean(0))
            vertices[ball] = seat + grown * (self.base[ball] - centre)
            seats.append(seat)
        return Shape(vertices.astype(np.float32), np.stack(seats).astype(np.float32))

    @cached_property
    def eye_base(self) -> np.ndarray:
        """Eyeball centres [2,3] of the base mesh."""
        return np.stack([_middle(self.base[self.part == PART[name]]) for name in ("eye_r", "eye_l")])

    def positions(self, shape: Shape, curves: np.ndarray) -> np.ndarray:
        """Compute vertices [F,V,3] float32 for ARKit curves [F,52], before head motion. Eyeballs do not move."""
        used = np.flatnonzero(np.abs(curves).max(0) > 0)
        out = np.repeat(shape.vertices[None], len(curves), 0)
        if not len(used):
            return out
        units = self.units[used]
        moved = np.abs(units).max((0, 2)) > 0
        moved &= ~np.isin(self.part, [PART["eye_l"], PART["eye_r"]])
        out = np.repeat(shape.vertices[None], len(curves), 0)
        flat = units[:, moved].reshape(len(used), -1)
        out[:, moved] += (curves[:, used].astype(np.float32) @ flat).reshape(len(curves), -1, 3)
        return out

    def moving(self, shape: Shape, curves: np.ndarray) -> np.ndarray:
        """Compute position and smooth normal [F,V,6] float32 of every vertex; eyeballs get radial normals.

        Only triangles that a curve moves are computed per frame.
        """
        positions = self.positions(shape, curves)
        frames, count, _ = positions.shape
        still = self._normals(positions[:1], np.arange(len(self.solid)), np.arange(count))[0]
        normals = np.repeat(still[None], frames, 0)
        shifted = (positions != positions[:1]).any((0, 2))
        touched = np.flatnonzero(shifted[self.solid].any(1))
        around = np.unique(self.solid[touched])
        if len(touched):
            all_around = np.flatnonzero(np.isin(self.solid, around).any(1))
            normals[:, around] = self._normals(positions, all_around, around)
        for name, centre in zip(("eye_r", "eye_l"), shape.eyes, strict=True):
            ball = self.part == PART[name]
            radial = shape.vertices[ball] - centre
            normals[:, ball] = radial / np.linalg.norm(radial, axis=1, keepdims=True)
        return np.concatenate([positions, normals], 2)

    def _normals(self, positions: np.ndarray, triangles: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        """Compute area-weighted normals [F,len(vertices),3] from a subset of the triangles."""
        a, b, c = (positions[:, self.solid[triangles, k]] for k in range(3))
        facing = np.cross(b - a, c - a)
        flat = facing.transpose(1, 0, 2).reshape(len(triangles), -1)
        total = self._gather[vertices][:, triangles] @ flat
        total = total.reshape(len(vertices), len(positions), 3).transpose(1, 0, 2)
        return total / np.maximum(np.linalg.norm(total, axis=2, keepdims=True), 1e-9)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the cross product [N] of vectors [N,2]."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _refit(assets: Assets) -> np.ndarray:
    """Return the base mesh [V,3] with two repairs.

    Lashes (broad bands meant for a transparent picture) shrink to a line on the lid. The teeth are lowered, so the
    upper teeth and not the lower ones show in speech.
    """
    from scipy.spatial import KDTree

    base = assets.base.copy()
    lashes, body = assets.part == PART["lashes"], np.flatnonzero(assets.part == 0)
    _, nearest = KDTree(base[body]).query(base[lashes])
    root = base[body[nearest]]
    base[lashes] = root + 0.4 * (base[lashes] - root)
    jaw = assets.units[[str(name) for name in assets.unit_names].index("jawOpen")]
    teeth, carried = assets.part == PART["teeth"], np.abs(jaw[:, 1]) > 0
    base[teeth & ~carried, 1] -= 0.05
    base[teeth & carried, 1] -= 0.06
    return base


def _speak_below_the_eyes(assets: Assets) -> np.ndarray:
    """Return ARKit displacements [52,V,3] whose jaw and mouth units fade out at the lower lids.

    Speech then moves no vertex from the eyes up, so twins are equal there to the bit, and the face mask covers every
    front vertex that speech moves.
    """
    units = assets.units.copy()
    fade = np.clip((7.17 - assets.base[:, 1]) / 0.15, 0, 1)[:, None]
    for index, name in enumerate(assets.unit_names):
        if str(name).startswith(("jaw", "mouth")):
            units[index] *= fade
    return units


def _middle(points: np.ndarray) -> np.ndarray:
    """Return the centre [3] of the bounding box of points [N,3]."""
    return (points.min(0) + points.max(0)) / 2


@lru_cache(maxsize=1)
def load_avatar() -> Avatar:
    """Load the avatar, at most once per process."""
    return Avatar(load_assets())
