"""Hair as geometry: the scalp lifted along its normals up to a ragged line, and a sheet for the longer styles."""

from __future__ import annotations

import numpy as np

from xdub.render.avatar import PART, Avatar, Shape
from xdub.render.person import Person
from xdub.render.surfaces import Piece, shell, smooth_normals, smooth_step


def hairline(rest: np.ndarray, fringe: float, sweep: float, recede: float) -> np.ndarray:
    """Compute the signed distance [V] above the hairline in canonical units; it is positive on the scalp.

    `fringe` lowers the hairline over the brow, `sweep` (-1..1) lowers one side more, `recede` raises the temples.
    """
    angle = np.degrees(np.arctan2(np.abs(rest[:, 0]), rest[:, 2] - 0.25))
    degrees = [0, 20, 38, 48, 54, 57, 61, 65, 70, 86, 91, 98, 126, 180]
    heights = [7.97, 7.99, 7.93, 7.74, 7.46, 7.20, 7.18, 7.40, 7.47, 7.47, 7.15, 6.95, 6.76, 6.70]
    line = np.interp(angle, degrees, heights)
    front = smooth_step(50, 36, angle)
    line -= (
        fringe * front * (1 + 0.6 * sweep * np.sign(rest[:, 0]) * smooth_step(0.0, 0.25, np.abs(rest[:, 0])))
    )
    line += recede * np.exp(-(((angle - 30) / 12) ** 2)) + 0.6 * recede * front
    ear = (np.abs(rest[:, 0]) > 0.715) & (rest[:, 1] < 7.46) & (rest[:, 2] > 0.28)
    return np.where(ear, -1.0, rest[:, 1] - line)


def hair_pieces(
    avatar: Avatar, shape: Shape, normal: np.ndarray, person: Person, rng: np.random.Generator
) -> list[Piece]:
    """Build this person's hair; under a hat only the visible part."""
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
    grown = smooth_step(0.0, soft, line) * on_head
    near = (line > -0.25) & on_head
    waves = np.sin(rest[:, 0] * rng.uniform(3, 7) + rng.uniform(0, 6))
    lumps = 1 + 0.25 * waves * np.sin(rest[:, 2] * 4 + rng.uniform(0, 6))
    top = 1 + rng.uniform(0.0, 0.8) * smooth_step(7.9, 8.4, rest[:, 1])
    if style in ("short", "volume"):
        lumps = lumps * top
    over_brow = 0.6 * (fringe > 0) * (line > -0.05) * (rest[:, 2] > 0.8)
    offset = 0.008 + thick * np.maximum(grown, over_brow) * lumps
    ids, position, triangles = shell(avatar, shape, normal, near, offset)
    pieces.append(_hair_piece(avatar, ids, position, triangles, line[ids], 0.55 + 0.45 * grown[ids]))
    pieces[0].hides = near & (line > 0.12)
    if style in ("long", "bob"):
        proxy = np.flatnonzero(avatar.part == PART["hair"])
        position = shape.vertices[proxy].astype(np.float64)
        number = np.full(len(rest), -1)
        number[proxy] = np.arange(len(proxy))
        faces = number[avatar.triangles[avatar.part[avatar.triangles[:, 0]] == PART["hair"]]]
        # The sheet is cut in front, so it does not hang over the face.
        ends = np.maximum(0.55 - rest[proxy, 2], rest[proxy, 1] - 8.0)
        if style == "bob":
            ends = np.minimum(ends, rest[proxy, 1] - rng.uniform(6.0, 6.5))
        pieces.append(_hair_piece(avatar, proxy, position, faces, ends, np.ones(len(proxy))))
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
        strand_uv(rest),
        tint,
        mark,
        triangles,
        hair=True,
    )


def strand_uv(rest: np.ndarray) -> np.ndarray:
    """Compute strand coordinates [n,2]: around the head, and from the crown down."""
    around = np.arctan2(rest[:, 0], rest[:, 2] - 0.1) / np.pi
    crown = np.linalg.norm(rest - np.array([0.0, 8.45, -0.05]), axis=1)
    return np.stack([np.abs(around), crown * 0.35], 1)
