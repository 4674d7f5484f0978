"""A head's surroundings: background, lights, camera, and an occluder in some clips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from xdub.render.gl import camera_matrix
from xdub.render.props import draw_occluder
from xdub.render.surfaces import Piece

DISTANCE = 14.0
"""Decimetres from the camera to the head."""
OCCLUDED = 0.15
"""Share of clips with an occluder in front of the face."""


@dataclass(frozen=True)
class Lighting:
    """Two directional lights over a hemisphere; linear RGB."""

    key_dir: np.ndarray
    key_color: np.ndarray
    rim_dir: np.ndarray
    rim_color: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    exposure: float

    @property
    def half_dir(self) -> np.ndarray:
        """Half vector [3] of the key light and the view direction +z; surfaces that face it show the highlight."""
        return _unit(*(self.key_dir + np.array([0.0, 0.0, 1.0])))


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of one take."""

    light: Lighting
    camera: np.ndarray  # [4,4]
    backdrop: np.ndarray  # [size,size,3] uint8
    occluder: Piece | None
    path: np.ndarray | None  # [F,3] position of the occluder in every frame


def _unit(*values: float) -> np.ndarray:
    v = np.asarray(values, float)
    return v / np.linalg.norm(v)


def _warmth(amount: float) -> np.ndarray:
    """Return the linear RGB of white light from cold (-1) to warm (1)."""
    return np.array([1 + 0.16 * amount, 1.0, 1 - 0.22 * amount])


def draw_lighting(rng: np.random.Generator) -> Lighting:
    """Draw a key light from the front, the side or above, and a fainter light from the other side."""
    side = rng.choice([-1.0, 1.0])
    warm = rng.normal(0, 0.5)
    contrast = rng.uniform(0, 1)
    key = _unit(side * rng.uniform(0.1, 0.95), rng.uniform(0.15, 0.8), rng.uniform(0.55, 1.0))
    rim = _unit(-side * rng.uniform(0.6, 1.2), rng.uniform(-0.1, 0.6), rng.uniform(-0.7, 0.5))
    sky = (0.56 - 0.30 * contrast) * _warmth(rng.normal(-0.2, 0.4))
    return Lighting(
        key_dir=key,
        key_color=(0.68 + 0.62 * contrast) * _warmth(warm),
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
    """Draw a background [size,size,3] uint8 out of focus: wall, shapes, shelves, window light or bokeh."""
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
            cx, cy = rng.uniform(0, 1), rng.uniform(0, 1)
            w, h = rng.uniform(0.05, 0.35), rng.uniform(0.05, 0.5)
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
            edge = 0.0
            while edge < size:
                wide = rng.uniform(0.015, 0.06) * size
                if rng.uniform() < 0.88:
                    tall = int((bottom - top) * rng.uniform(0.6, 0.95))
                    image[bottom - tall : bottom, int(edge) : int(edge + wide)] = _colour(rng, 0.03, 0.6)
                edge += wide
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
    """Return a texture [256,256,2] uint8 of fine and coarse hair strands along the rows; it tiles both ways."""
    from xdub.seeding import rng as seeded

    rng = seeded("render", "strands")
    fine = gaussian_filter(rng.normal(size=(256, 256)), (26, 0.7), mode="wrap")
    coarse = gaussian_filter(rng.normal(size=(256, 256)), (40, 4.0), mode="wrap")
    fine = 0.5 + 0.2 * fine / fine.std() + 0.12 * coarse / coarse.std()
    coarse = 0.5 + 0.22 * coarse / coarse.std()
    return np.rint(255 * np.clip(np.stack([fine, coarse], 2), 0, 1)).astype(np.uint8)


def draw_surroundings(rng: np.random.Generator, size: int, frames: int, skin: np.ndarray) -> Surroundings:
    """Draw the surroundings of one take; an occluding hand has roughly the colour `skin`."""
    light = draw_lighting(rng)
    centre = np.array([rng.uniform(-0.25, 0.25), 6.95 + rng.uniform(-0.15, 0.15), 0.9])
    camera = camera_matrix(centre, DISTANCE, rng.uniform(3.9, 4.5))
    occluder = path = None
    if rng.uniform() < OCCLUDED:
        occluder, path = draw_occluder(rng, skin, frames)
    # The backdrop is drawn last, because only the number of its random values depends on `size`.
    backdrop = draw_backdrop(rng, size)
    return Surroundings(light, camera, backdrop, occluder, path)
