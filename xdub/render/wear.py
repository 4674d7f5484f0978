"""Clothes of a rendered person: a shirt, and sometimes a hat and glasses."""

from __future__ import annotations

import numpy as np

from xdub.render.avatar import Avatar, Shape
from xdub.render.person import Person
from xdub.render.skin import WHITE, cloth_uv
from xdub.render.surfaces import Piece, shell, smooth_normals, smooth_step


def worn_pieces(
    avatar: Avatar, shape: Shape, normal: np.ndarray, person: Person, rng: np.random.Generator
) -> list[Piece]:
    """Build all clothes of this person."""
    pieces = [cloth_piece(avatar, shape, normal, person, rng)]
    if person.hair_style in ("beanie", "cap"):
        pieces.append(hat_piece(avatar, shape, normal, person))
    if person.hair_style == "cap":
        pieces.append(visor_piece(avatar, shape, person))
    if person.glasses:
        pieces.append(glasses_piece(avatar, shape, rng))
    return pieces


def cloth_piece(
    avatar: Avatar, shape: Shape, normal: np.ndarray, person: Person, rng: np.random.Generator
) -> Piece:
    """Build a shirt: the body below a neckline, a little wider than the skin."""
    rest = avatar.base
    neck = rng.uniform(5.50, 5.80)
    dip = rng.uniform(0.0, 0.55)
    line = (
        neck
        + 0.7 * smooth_step(0.45, 1.1, np.abs(rest[:, 0]))
        - dip * np.exp(-((rest[:, 0] / 0.45) ** 2)) * smooth_step(0.2, 0.8, rest[:, 2])
        + 0.10 * smooth_step(0.5, -0.2, rest[:, 2])
    )
    below = np.where(avatar.part == 0, line - rest[:, 1], -1.0)
    cover = below > -0.3
    offset = 0.045 + 0.05 * smooth_step(0.0, 0.5, below)
    ids, position, triangles = shell(avatar, shape, normal, cover, offset)
    n = len(ids)
    shade = 0.72 + 0.28 * smooth_step(0.0, 0.05, below[ids])
    tint = np.concatenate([person.cloth[None] * shade[:, None], np.ones((n, 1))], 1)
    mark = np.stack([np.zeros(n), avatar.head_weight[ids], np.zeros(n), np.zeros(n)], 1)
    return Piece(
        position,
        smooth_normals(position, triangles),
        below[ids],
        cloth_uv(rest[ids]),
        tint,
        mark,
        triangles,
        hides=below > 0.12,
    )


def hat_piece(avatar: Avatar, shape: Shape, normal: np.ndarray, person: Person) -> Piece:
    """Build a beanie or the crown of a cap: the scalp above a tilted rim, lifted along its normals."""
    rest = avatar.base
    on_head = (avatar.part == 0) & (avatar.head_weight > 0.6)
    angle = np.degrees(np.arctan2(np.abs(rest[:, 0]), rest[:, 2] - 0.25))
    tilt = 7.80 - 0.26 * smooth_step(25, 75, angle) - 0.5 * smooth_step(95, 165, angle)
    above = np.where(on_head, rest[:, 1] - tilt, -1.0)
    cover = (above > -0.2) & ~((np.abs(rest[:, 0]) > 0.715) & (rest[:, 1] < 7.44) & (rest[:, 2] > 0.28))
    roll = (
        smooth_step(0.0, 0.04, above) * smooth_step(0.34, 0.28, above)
        if person.hair_style == "beanie"
        else 0.0
    )
    offset = 0.10 + 0.06 * roll + 0.16 * smooth_step(7.9, 8.5, rest[:, 1])
    ids, position, triangles = shell(avatar, shape, normal, cover, offset)
    n = len(ids)
    rib = 0.85 + 0.15 * np.sin(np.arctan2(rest[ids, 0], rest[ids, 2] - 0.1) * 40)
    tint = np.concatenate([person.hat[None] * rib[:, None], np.ones((n, 1))], 1)
    mark = np.stack([np.zeros(n), np.ones(n), np.zeros(n), np.zeros(n)], 1)
    uv = np.tile(np.array(WHITE), (n, 1))
    return Piece(
        position,
        smooth_normals(position, triangles),
        above[ids],
        uv,
        tint,
        mark,
        triangles,
        hides=cover & (above > 0.1),
    )


def visor_piece(avatar: Avatar, shape: Shape, person: Person) -> Piece:
    """Build the peak of a cap, visible from both sides."""
    brow = shape.vertices[avatar.landmark_ids[[19, 24]]].mean(0)
    angle, out = np.meshgrid(np.radians(np.linspace(-62, 62, 13)), np.linspace(0, 1, 5))
    reach = 0.62 * out * np.cos(angle) ** 0.7
    x = (0.74 + 0.10 * out) * np.sin(angle)
    z = brow[2] - 0.92 + 0.93 * np.cos(angle) + reach
    y = brow[1] + 0.27 - 0.12 * np.abs(angle) ** 2 * (0.3 + out) - 0.16 * out
    position = np.stack([x, y, z], 2).reshape(-1, 3)
    cells = np.arange(4)[:, None] * 13 + np.arange(12)[None]
    a, b, c, d = (cells + k for k in (0, 1, 13, 14))
    up = np.concatenate([np.stack(t, 2).reshape(-1, 3) for t in ((a, c, b), (b, c, d))])
    n = len(position)
    normal = smooth_normals(position, up)
    both = np.concatenate([position, position - [0.0, 0.02, 0.0]])
    tint = np.concatenate([np.tile(0.6 * person.hat, (2 * n, 1)), np.full((2 * n, 1), 1.0)], 1)
    tint[n:] *= [0.5, 0.5, 0.5, 0.6]
    mark = np.tile([0.0, 1.0, 0.0, 0.0], (2 * n, 1))
    uv = np.tile(np.array(WHITE), (2 * n, 1))
    triangles = np.concatenate([up, up[:, ::-1] + n])
    return Piece(both, np.concatenate([normal, -normal]), np.ones(2 * n), uv, tint, mark, triangles)


def _tube(path: np.ndarray, radius: float, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Build a six-sided tube along points [n,3]: vertices and triangles."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead, [0.13, 0.29, 0.95])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(ahead, side)
    angle = np.arange(6) * np.pi / 3
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    n = len(path)
    i, j = np.meshgrid(np.arange(n if closed else n - 1), np.arange(6), indexing="ij")
    a, b = i * 6 + j, i * 6 + (j + 1) % 6
    c, d = (i + 1) % n * 6 + j, (i + 1) % n * 6 + (j + 1) % 6
    triangles = np.concatenate([np.stack(t, 2).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    return vertices, triangles


def glasses_piece(avatar: Avatar, shape: Shape, rng: np.random.Generator) -> Piece:
    """Build spectacles without lenses: two rims, a bridge, and sides to the ears."""
    points = shape.vertices[avatar.landmark_ids]
    width, height = rng.uniform(0.23, 0.27), rng.uniform(0.15, 0.21)
    squareness = rng.uniform(0.5, 1.0)
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    round_x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** squareness
    round_y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** squareness
    thick = rng.uniform(0.012, 0.026)
    bridge = points[27] + [0.0, 0.0, 0.06]
    parts = []
    for side, eye in zip((-1.0, 1.0), shape.eyes, strict=True):
        x = eye[0] + side * 0.01 + width * round_x
        y = eye[1] - 0.03 + height * round_y
        z = bridge[2] - 0.01 - 0.25 * np.abs(x) ** 1.5
        parts.append(_tube(np.stack([x, y, z], 1), thick, closed=True))
        hinge = np.array([eye[0] + side * (0.01 + width), eye[1] + 0.03, z[np.argmax(side * x)]])
        ear = np.array([points[0 if side < 0 else 16][0] + side * 0.03, eye[1] + 0.02, 0.45])
        t = np.linspace(0, 1, 8)[:, None]
        path = hinge * (1 - t) + ear * t + [side * 0.06, 0, 0] * np.sin(np.pi * t) ** 0.5
        parts.append(_tube(path, thick, closed=False))
    inner = shape.eyes[:, 0] + np.array([1.0, -1.0]) * (width - 0.01)
    x = np.linspace(inner[0], inner[1], 7)
    arch = 0.04 * np.cos(np.linspace(-np.pi / 2, np.pi / 2, 7))
    across = np.stack([x, shape.eyes[:, 1].mean() + arch, bridge[2] - 0.25 * np.abs(x) ** 1.5], 1)
    parts.append(_tube(across, thick, closed=False))
    shift = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    position = np.concatenate([vertices for vertices, _ in parts])
    triangles = np.concatenate([t + s for (_, t), s in zip(parts, shift, strict=False)])
    # The rims are thin, so both sides of their surface are drawn.
    triangles = np.concatenate([triangles, triangles[:, ::-1]])
    normal = smooth_normals(position, triangles[: len(triangles) // 2])
    n = len(position)
    colour = rng.uniform(0.01, 0.25) * rng.uniform(0.5, 1.0, 3)
    tint = np.concatenate([np.tile(colour, (n, 1)), np.ones((n, 1))], 1)
    mark = np.tile([0.0, 1.0, 0.0, 0.0], (n, 1))
    return Piece(position, normal, np.ones(n), np.tile(np.array(WHITE), (n, 1)), tint, mark, triangles)
