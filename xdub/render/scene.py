"""Where the head is: background, lights, camera, and what may pass in front of the face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from xdub.render.gl import look
from xdub.render.head import Piece, smooth_normals
from xdub.render.skin import WHITE

DISTANCE = 14.0  # decimetres from camera to head
OCCLUDED = 0.15  # share of clips with something in front of the face


@dataclass(frozen=True)
class Light:
    """Two directional lights over a hemisphere; linear RGB."""

    key_dir: np.ndarray
    key_color: np.ndarray
    rim_dir: np.ndarray
    rim_color: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    exposure: float


@dataclass(frozen=True)
class Scene:
    """One take's surroundings."""

    light: Light
    camera: np.ndarray  # [4,4]
    eye_point: np.ndarray  # [3]
    backdrop: np.ndarray  # [size,size,3] uint8
    occluder: Piece | None
    path: np.ndarray | None  # [F,3] its place in every frame


def _unit(*values: float) -> np.ndarray:
    v = np.asarray(values, float)
    return v / np.linalg.norm(v)


def _warmth(amount: float) -> np.ndarray:
    """Colour of white light, cold (-1) to warm (1)."""
    return np.array([1 + 0.16 * amount, 1.0, 1 - 0.22 * amount])


def draw_light(rng: np.random.Generator) -> Light:
    """A key from the front, the side or above, a fainter one from the other side."""
    side = rng.choice([-1.0, 1.0])
    warm = rng.normal(0, 0.5)
    contrast = rng.uniform(0, 1)
    key = _unit(side * rng.uniform(0.1, 0.95), rng.uniform(0.15, 0.8), rng.uniform(0.55, 1.0))
    rim = _unit(-side * rng.uniform(0.6, 1.2), rng.uniform(-0.1, 0.6), rng.uniform(-0.7, 0.5))
    sky = (0.62 - 0.34 * contrast) * _warmth(rng.normal(-0.2, 0.4))
    return Light(
        key_dir=key,
        key_color=(0.75 + 0.65 * contrast) * _warmth(warm),
        rim_dir=rim,
        rim_color=rng.uniform(0.0, 0.55) * _warmth(rng.normal(0, 1.0)),
        sky=sky,
        ground=sky * rng.uniform(0.35, 0.6) * _warmth(rng.normal(0.4, 0.3)),
        exposure=float(rng.uniform(0.85, 1.15)),
    )


def _blotches(rng: np.random.Generator, size: int, cell: float) -> np.ndarray:
    n = int(size / cell) + 4
    return zoom(rng.normal(size=(n, n)), size / (n - 3), order=3)[:size, :size]


def _colour(rng: np.random.Generator, low: float = 0.04, high: float = 0.75) -> np.ndarray:
    base = rng.uniform(0.45, 1.0, 3)
    return rng.uniform(low, high) * base / base.max()


def draw_backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """[size,size,3] uint8: wall, blurred shapes, shelves, window light or bokeh, out of focus."""
    y, x = np.mgrid[0:size, 0:size] / size
    a, b = _colour(rng), _colour(rng)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    image = a * (1 - ramp) + b * ramp
    kind = rng.choice(["wall", "shapes", "shelf", "bokeh", "window"], p=[0.25, 0.25, 0.2, 0.15, 0.15])
    blur = 0.0
    if kind == "wall":
        image = image * (1 + 0.05 * _blotches(rng, size, size / 5)[..., None])
    elif kind == "shapes":
        for _ in range(int(rng.integers(4, 12))):
            cx, cy, w, h = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.35), rng.uniform(0.05, 0.5)
            inside = (np.abs(x - cx) < w / 2) & (np.abs(y - cy) < h / 2)
            if rng.uniform() < 0.4:
                inside = ((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 0.25
            image[inside] = _colour(rng)
        blur = rng.uniform(2, 9) * size / 256
    elif kind == "shelf":
        boards = int(rng.integers(3, 6))
        image = np.broadcast_to(_colour(rng, 0.02, 0.2), (size, size, 3)).copy()
        for row in range(boards):
            top, bottom = int(row / boards * size), int((row + 0.92) / boards * size)
            at = 0.0
            while at < size:
                wide = rng.uniform(0.015, 0.06) * size
                if rng.uniform() < 0.88:
                    tall = int((bottom - top) * rng.uniform(0.6, 0.95))
                    image[bottom - tall : bottom, int(at) : int(at + wide)] = _colour(rng, 0.03, 0.6)
                at += wide
            image[bottom : int((row + 1) / boards * size)] = a * 0.5
        blur = rng.uniform(1.5, 5) * size / 256
    elif kind == "bokeh":
        image = image * 0.25
        for _ in range(int(rng.integers(12, 40))):
            cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.015, 0.06)
            disc = np.clip((r - np.hypot(x - cx, y - cy)) * size / 2, 0, 1)[..., None]
            image = image + disc * _colour(rng, 0.1, 0.7) * 0.8
        blur = 1.2 * size / 256
    else:
        bright = np.clip(1.2 - np.abs(x - rng.uniform(0, 1)) * rng.uniform(2, 4), 0, 1)[..., None]
        image = image * 0.5 + bright * _colour(rng, 0.5, 1.0)
        bars = (np.abs((x * rng.uniform(2, 4) + rng.uniform(0, 1)) % 1 - 0.5) < 0.04)[..., None]
        image = np.where(bars, image * 0.4, image)
        blur = rng.uniform(2, 7) * size / 256
    if blur:
        image = np.stack([gaussian_filter(image[..., k], blur, mode="nearest") for k in range(3)], 2)
    image = image + rng.normal(0, 0.004, image.shape)
    image = np.clip(image, 0, None)
    return np.rint(255 * np.clip(image, 0, 1) ** (1 / 2.2)).astype(np.uint8)


@lru_cache(maxsize=1)
def strands() -> np.ndarray:
    """[256,256,2] uint8: hair strands along the rows' direction, fine and coarse; tiles in both directions."""
    from xdub.seeding import rng as seeded

    rng = seeded("render", "strands")
    fine = gaussian_filter(rng.normal(size=(256, 256)), (26, 0.7), mode="wrap")
    coarse = gaussian_filter(rng.normal(size=(256, 256)), (40, 4.0), mode="wrap")
    fine = 0.5 + 0.2 * fine / fine.std() + 0.12 * coarse / coarse.std()
    coarse = 0.5 + 0.22 * coarse / coarse.std()
    return np.rint(255 * np.clip(np.stack([fine, coarse], 2), 0, 1)).astype(np.uint8)


def _lathe(profile: np.ndarray, sides: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Turn (radius, height) rows about the y axis: vertices [n*sides,3], triangles."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], 1)
    vertices = (profile[:, None, 0, None] * ring + np.stack([0 * angle] * 3, 1)[None])
    vertices[..., 1] = profile[:, 1, None]
    triangles = []
    for i in range(len(profile) - 1):
        for j in range(sides):
            a, b = i * sides + j, i * sides + (j + 1) % sides
            triangles += [[a, a + sides, b], [b, a + sides, b + sides]]
    return vertices.reshape(-1, 3), np.asarray(triangles)


def _capsule(start: np.ndarray, end: np.ndarray, thick: float, thin: float) -> tuple[np.ndarray, np.ndarray]:
    """A finger-like rod with round ends."""
    length = np.linalg.norm(end - start)
    bow = np.linspace(0, np.pi / 2, 5)
    low = np.stack([thick * np.sin(bow), -thick * np.cos(bow)], 1)
    high = np.stack([thin * np.cos(bow), length + thin * np.sin(bow)], 1)
    vertices, triangles = _lathe(np.concatenate([low, high]), 12)
    y = (end - start) / length
    x = np.cross(y, [0.0, 0.3, 1.0])
    x /= np.linalg.norm(x)
    frame = np.stack([x, y, np.cross(x, y)], 1)
    return vertices @ frame.T + start, triangles


def _occluder(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, float]]) -> Piece:
    """Join (vertices, triangles, colour, skin, gloss) into one marked piece."""
    position, triangles, tint, mark, shift = [], [], [], [], 0
    for vertices, faces, colour, skin, gloss in parts:
        n = len(vertices)
        position.append(vertices)
        triangles.append(faces + shift)
        tint.append(np.concatenate([np.tile(colour, (n, 1)), np.full((n, 1), -1.0)], 1))
        mark.append(np.tile([skin, 0.0, gloss, 0.0], (n, 1)))
        shift += n
    where, faces = np.concatenate(position), np.concatenate(triangles)
    normal = smooth_normals(where, faces)
    uv = np.tile(np.array(WHITE), (len(where), 1))
    return Piece(where, normal, np.ones(len(where)), uv, np.concatenate(tint), np.concatenate(mark), faces)


def draw_occluder(rng: np.random.Generator, skin: np.ndarray, frames: int) -> tuple[Piece, np.ndarray]:
    """A microphone or a hand, and its path [F,3] across the lower face."""
    time = (np.arange(frames) + 0.5) / 25
    if rng.uniform() < 0.5:
        grey, dark = rng.uniform(0.03, 0.25) * np.ones(3), rng.uniform(0.01, 0.06) * np.ones(3)
        bow = np.linspace(-np.pi / 2, np.pi / 2, 9)
        ball = _lathe(np.stack([0.25 * np.cos(bow) + 1e-4, 0.25 * np.sin(bow)], 1))
        handle = _lathe(np.array([[0.001, -2.6], [0.12, -2.6], [0.17, -0.3], [0.20, -0.14], [0.001, -0.14]]))
        tilt = np.radians(rng.uniform(-35, 35))
        turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
        piece = _occluder([(ball[0] @ turn.T, ball[1][:, ::-1], grey, 0.0, 0.6), (handle[0] @ turn.T, handle[1][:, ::-1], dark, 0.0, 0.8)])
        rest = np.array([rng.uniform(-0.35, 0.35), rng.uniform(5.75, 6.35), 2.25])
        sway = np.stack([0.10 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time + rng.uniform(0, 6)),
                         0.12 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time + rng.uniform(0, 6)), 0 * time], 1)  # fmt: skip
        return piece, rest + sway
    colour = skin * rng.uniform(0.85, 1.05)
    side = rng.choice([-1.0, 1.0])
    spread = rng.uniform(0.17, 0.22)
    parts = []
    for k in range(4):
        base = np.array([side * 0.9, (k - 1.5) * spread * 1.1, 0.0])
        tip = np.array([-side * (0.12 * np.sin(k * 1.1 + 0.8)), (k - 1.5) * spread * 1.25 + 0.25, -0.05 + 0.03 * k])
        vertices, faces = _capsule(base, tip, 0.115, 0.085)
        parts.append((vertices, faces[:, ::-1], colour, 1.0, 0.5))
    palm, faces = _capsule(np.array([side * 2.0, -0.9, 0.0]), np.array([side * 1.0, -0.05, 0.0]), 0.34, 0.42)
    parts.append((palm * [1, 1, 0.6], faces[:, ::-1], colour, 1.0, 0.4))
    piece = _occluder(parts)
    start = np.array([side * rng.uniform(1.6, 2.6), rng.uniform(-0.8, 0.2), 0.0])
    place = np.array([side * rng.uniform(-0.1, 0.25), rng.uniform(6.1, 6.6), 2.1])
    begin, stay = rng.uniform(0.0, max(0.1, time[-1] - 0.8)), rng.uniform(0.4, 1.2)
    t = np.clip((time - begin) / 0.5, 0, 1) - np.clip((time - begin - 0.5 - stay) / 0.5, 0, 1)
    t = t * t * (3 - 2 * t)
    return piece, place + start * (1 - t)[:, None]


def draw_scene(rng: np.random.Generator, size: int, frames: int, skin: np.ndarray) -> Scene:
    """Random surroundings of one take."""
    light = draw_light(rng)
    backdrop = draw_backdrop(rng, size)
    centre = np.array([rng.uniform(-0.25, 0.25), 6.95 + rng.uniform(-0.15, 0.15), 0.9])
    camera, eye_point = look(centre, DISTANCE, rng.uniform(3.9, 4.5))
    occluder = path = None
    if rng.uniform() < OCCLUDED:
        occluder, path = draw_occluder(rng, skin, frames)
    return Scene(light, camera, eye_point, backdrop, occluder, path)
