"""One person's mesh: skin, eyes, teeth, hair or hat, and clothes, with colours per vertex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.render.avatar import PART, Avatar, Shape
from xdub.render.gl import Mesh
from xdub.render.identity import Identity
from xdub.render.skin import WHITE, cloth_uv, skin_uv

TEETH = np.array([0.62, 0.56, 0.47])
TONGUE = np.array([0.20, 0.042, 0.042])
LASH = np.array([0.012, 0.010, 0.010])


@dataclass
class Piece:
    """Extra geometry that rides along: n vertices, fixed in the head's or the body's frame."""

    position: np.ndarray  # [n,3]
    normal: np.ndarray  # [n,3]
    cut: np.ndarray  # [n] negative where it ends
    uv: np.ndarray  # [n,2]
    tint: np.ndarray  # [n,4]
    mark: np.ndarray  # [n,4]
    triangles: np.ndarray  # [t,3] local
    hair: bool = False
    hides: np.ndarray | None = None  # [V] bool: the body's vertices that nobody sees under it


def step(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def hairline(rest: np.ndarray, fringe: float, sweep: float, recede: float) -> np.ndarray:
    """[V]: signed distance above the hairline in canonical units (positive: scalp).

    `fringe` lowers it over the brow, `sweep` (-1..1) more on one side, `recede` raises the temples.
    """
    angle = np.degrees(np.arctan2(np.abs(rest[:, 0]), rest[:, 2] - 0.25))
    degrees = [0, 20, 38, 48, 54, 57, 61, 65, 70, 86, 91, 98, 126, 180]
    heights = [7.97, 7.99, 7.93, 7.74, 7.46, 7.20, 7.18, 7.40, 7.47, 7.47, 7.15, 6.95, 6.76, 6.70]
    line = np.interp(angle, degrees, heights)
    front = step(50, 36, angle)
    line -= fringe * front * (1 + 0.6 * sweep * np.sign(rest[:, 0]) * step(0.0, 0.25, np.abs(rest[:, 0])))
    line += recede * np.exp(-(((angle - 30) / 12) ** 2)) + 0.6 * recede * front
    ear = (np.abs(rest[:, 0]) > 0.715) & (rest[:, 1] < 7.46) & (rest[:, 2] > 0.28)
    return np.where(ear, -1.0, rest[:, 1] - line)


def ambient(avatar: Avatar) -> np.ndarray:
    """[V] 0..1: how open the surface is around each vertex, from its curvature at three scales."""
    triangles = avatar.solid
    count = len(avatar.base)
    from scipy import sparse

    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    adjacency = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    adjacency.data[:] = 1.0
    degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    mean = sparse.diags(1 / degree) @ adjacency
    flat = np.zeros((1, 52), np.float32)
    normal = avatar.moving(Shape(avatar.base, avatar.eye_base.astype(np.float32)), flat)[0, :, 3:]
    total = np.zeros(count)
    smooth = avatar.base.astype(float)
    for rounds, weight in ((1, 6.0), (5, 5.0), (20, 4.0)):
        for _ in range(rounds):
            smooth = mean @ smooth
        total += weight * np.maximum(((smooth - avatar.base) * normal).sum(1), 0)
    for _ in range(2):
        total = mean @ total
    total *= 0.3 + 0.7 * step(5.6, 6.4, avatar.base[:, 1])  # throat and shoulders are flat enough
    return np.clip(1 - total, 0.12, 1)


def shell(
    avatar: Avatar, shape: Shape, normal: np.ndarray, cover: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Body triangles under `cover`, lifted along their normals: vertex ids [n], positions [n,3], local triangles."""
    body = avatar.triangles[avatar.part[avatar.triangles[:, 0]] == 0]
    chosen = body[(cover[body] > 0).all(1)]
    ids, local = np.unique(chosen, return_inverse=True)
    return ids, shape.vertices[ids] + normal[ids] * offset[ids, None], local.reshape(-1, 3)


def smooth_normals(position: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted vertex normals [n,3]."""
    a, b, c = (position[triangles[:, k]] for k in range(3))
    facing = np.cross(b - a, c - a)
    total = np.zeros_like(position)
    for k in range(3):
        np.add.at(total, triangles[:, k], facing)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)


def head_uv_hair(rest: np.ndarray) -> np.ndarray:
    """Strand coordinates: around the head, and along it from the crown down."""
    around = np.arctan2(rest[:, 0], rest[:, 2] - 0.1) / np.pi
    crown = np.linalg.norm(rest - np.array([0.0, 8.45, -0.05]), axis=1)
    return np.stack([np.abs(around), crown * 0.35], 1)


def hair_pieces(
    avatar: Avatar, shape: Shape, normal: np.ndarray, person: Identity, rng: np.random.Generator
) -> list[Piece]:
    """The hair or hat of this person."""
    style, rest = person.hair_style, avatar.base
    pieces: list[Piece] = []
    covered = style in ("beanie", "cap")
    fringe = rng.uniform(0.05, 0.24) * (rng.uniform() < 0.45) * (style in ("short", "volume", "long", "bob"))
    recede = rng.uniform(0.05, 0.3) * (person.age > 0.3) * (person.feminine < 0.5) * (fringe == 0)
    line = hairline(rest, fringe, rng.uniform(-1, 1), recede) - 0.03 * covered
    line += 0.015 * np.sin(rest[:, 0] * 23 + rng.uniform(0, 6)) + rng.normal(0, 0.008, len(rest))
    on_head = (avatar.part == 0) & (avatar.head_weight > 0.6)
    if style == "bald":
        return pieces
    thick = {"shaved": 0.012, "crop": 0.045, "short": 0.11, "volume": 0.26, "long": 0.13, "bob": 0.15,
             "beanie": 0.03, "cap": 0.05}[style]  # fmt: skip
    soft = {"shaved": 0.10, "crop": 0.10, "short": 0.14, "volume": 0.20}.get(style, 0.14)
    grown = step(0.0, soft, line) * on_head
    near = (line > -0.25) & on_head
    lumps = 1 + 0.25 * np.sin(rest[:, 0] * rng.uniform(3, 7) + rng.uniform(0, 6)) * np.sin(
        rest[:, 2] * 4 + rng.uniform(0, 6)
    )
    top = 1 + rng.uniform(0.0, 0.8) * step(7.9, 8.4, rest[:, 1])
    if style in ("short", "volume"):
        lumps = lumps * top
    offset = (
        0.008 + thick * np.maximum(grown, 0.6 * (fringe > 0) * (line > -0.05) * (rest[:, 2] > 0.8)) * lumps
    )
    ids, position, triangles = shell(avatar, shape, normal, near, offset)
    pieces.append(_hair_piece(avatar, ids, position, triangles, line[ids], 0.55 + 0.45 * grown[ids]))
    pieces[0].hides = near & (line > 0.12)
    if style in ("long", "bob"):
        proxy = np.flatnonzero(avatar.part == PART["hair"])
        position = shape.vertices[proxy].astype(np.float64)
        number = np.full(len(rest), -1)
        number[proxy] = np.arange(len(proxy))
        faces = number[avatar.triangles[avatar.part[avatar.triangles[:, 0]] == PART["hair"]]]
        ends = np.maximum(0.55 - rest[proxy, 2], rest[proxy, 1] - 8.0)  # no curtain over the face
        if style == "bob":
            ends = np.minimum(ends, rest[proxy, 1] - rng.uniform(6.0, 6.5))
        pieces.append(_hair_piece(avatar, proxy, position, faces, ends, np.ones(len(proxy))))
    if covered:
        pieces.append(_hat(avatar, shape, normal, person, on_head))
        if style == "cap":
            pieces.append(_visor(shape, avatar, person))
    return pieces


def _hair_piece(
    avatar: Avatar,
    ids: np.ndarray,
    position: np.ndarray,
    triangles: np.ndarray,
    cut: np.ndarray,
    shade: np.ndarray,
) -> Piece:
    rest = avatar.base[ids]
    n = len(ids)
    tint = np.concatenate([np.repeat(shade[:, None], 3, 1), np.ones((n, 1))], 1)
    mark = np.stack([np.zeros(n), avatar.head_weight[ids], np.zeros(n), np.zeros(n)], 1)
    return Piece(
        position,
        smooth_normals(position, triangles),
        cut,
        head_uv_hair(rest),
        tint,
        mark,
        triangles,
        hair=True,
    )


def _hat(avatar: Avatar, shape: Shape, normal: np.ndarray, person: Identity, on_head: np.ndarray) -> Piece:
    rest = avatar.base
    angle = np.degrees(np.arctan2(np.abs(rest[:, 0]), rest[:, 2] - 0.25))
    tilt = 7.80 - 0.26 * step(25, 75, angle) - 0.5 * step(95, 165, angle)
    above = np.where(on_head, rest[:, 1] - tilt, -1.0)
    cover = (above > -0.2) & ~((np.abs(rest[:, 0]) > 0.715) & (rest[:, 1] < 7.44) & (rest[:, 2] > 0.28))
    roll = step(0.0, 0.04, above) * step(0.34, 0.28, above) if person.hair_style == "beanie" else 0.0
    offset = 0.10 + 0.06 * roll + 0.16 * step(7.9, 8.5, rest[:, 1])
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


def _visor(shape: Shape, avatar: Avatar, person: Identity) -> Piece:
    """The peak of a cap, seen from both sides."""
    brow = shape.vertices[avatar.landmark_ids[[19, 24]]].mean(0)
    angle, out = np.meshgrid(np.radians(np.linspace(-62, 62, 13)), np.linspace(0, 1, 5))
    reach = 0.62 * out * np.cos(angle) ** 0.7
    x = (0.74 + 0.10 * out) * np.sin(angle)
    z = brow[2] - 0.92 + 0.93 * np.cos(angle) + reach
    y = brow[1] + 0.36 - 0.14 * np.abs(angle) ** 2 * (0.4 + out) - 0.10 * out
    position = np.stack([x, y, z], 2).reshape(-1, 3)
    cells = np.arange(4)[:, None] * 13 + np.arange(12)[None]
    a, b, c, d = (cells + k for k in (0, 1, 13, 14))
    up = np.concatenate([np.stack(t, 2).reshape(-1, 3) for t in ((a, c, b), (b, c, d))])
    n = len(position)
    normal = smooth_normals(position, up)
    both = np.concatenate([position, position - [0.0, 0.02, 0.0]])
    tint = np.concatenate([np.tile(person.hat, (2 * n, 1)), np.full((2 * n, 1), 1.0)], 1)
    tint[n:] *= [0.5, 0.5, 0.5, 0.6]
    mark = np.tile([0.0, 1.0, 0.0, 0.0], (2 * n, 1))
    uv = np.tile(np.array(WHITE), (2 * n, 1))
    triangles = np.concatenate([up, up[:, ::-1] + n])
    return Piece(both, np.concatenate([normal, -normal]), np.ones(2 * n), uv, tint, mark, triangles)


def cloth_piece(
    avatar: Avatar, shape: Shape, normal: np.ndarray, person: Identity, rng: np.random.Generator
) -> Piece:
    """A shirt: the body below a neckline, a little wider than the skin."""
    rest = avatar.base
    neck = rng.uniform(5.50, 5.80)
    dip = rng.uniform(0.0, 0.55)
    line = (
        neck
        + 0.7 * step(0.45, 1.1, np.abs(rest[:, 0]))
        - dip * np.exp(-((rest[:, 0] / 0.45) ** 2)) * step(0.2, 0.8, rest[:, 2])
        + 0.10 * step(0.5, -0.2, rest[:, 2])
    )
    below = np.where(avatar.part == 0, line - rest[:, 1], -1.0)
    cover = below > -0.3
    offset = 0.045 + 0.05 * step(0.0, 0.5, below)
    ids, position, triangles = shell(avatar, shape, normal, cover, offset)
    n = len(ids)
    shade = 0.72 + 0.28 * step(0.0, 0.05, below[ids])
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


def build_mesh(avatar: Avatar, person: Identity, open_: np.ndarray, pieces: list[Piece]) -> Mesh:
    """Static arrays of skin and organs followed by the pieces, in order."""
    part, rest = avatar.part, avatar.base
    n = len(rest)
    tint = np.ones((n, 4))
    tint[:, :3] = person.skin
    tint[:, 3] = open_
    mark = np.zeros((n, 4))
    mark[:, 0], mark[:, 1], mark[:, 2] = 1.0, avatar.head_weight, 1.0
    mark[:, 3] = avatar.inside
    uv = skin_uv(rest)
    organs = (
        ("teeth", TEETH, 0.5, 1.22, 1.5),
        ("tongue", TONGUE, 0.2, 1.0, 1.48),
        ("lashes", LASH, 0.0, 0.0, 0.1),
    )
    for name, colour, gloss, back, front in organs:
        of = part == PART[name]
        depth = step(back, front, rest[of, 2])  # the mouth's depth is dark
        tint[of, :3] = colour * (0.06 + 0.94 * depth[:, None])
        tint[of, 3] = 0.04 + (0.55 if name != "tongue" else 0.25) * depth
        mark[of] = [0.3, 1.0, gloss, 0.0]
        uv[of] = WHITE
    shift = np.cumsum([n] + [len(p.position) for p in pieces])
    hidden = np.zeros(n, bool)
    for piece in pieces:
        if piece.hides is not None:
            hidden |= piece.hides
    skin = avatar.solid[~hidden[avatar.solid].all(1)]
    skin = skin[np.argsort(-rest[skin, 2].max(1), kind="stable")]
    cloth = [p.triangles + s for p, s in zip(pieces, shift, strict=False) if not p.hair]
    hair = [p.triangles + s for p, s in zip(pieces, shift, strict=False) if p.hair]
    return Mesh(
        cut=np.concatenate([np.ones(n), *(p.cut for p in pieces)]),
        uv=np.concatenate([uv, *(p.uv for p in pieces)]),
        tint=np.concatenate([tint, *(p.tint for p in pieces)]),
        mark=np.concatenate([mark, *(p.mark for p in pieces)]),
        surface=skin,
        cloth=np.concatenate(cloth) if cloth else np.zeros((0, 3), np.int32),
        eyes=avatar.eyeballs,
        hair=np.concatenate(hair) if hair else np.zeros((0, 3), np.int32),
    )
