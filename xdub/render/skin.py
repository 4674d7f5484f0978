"""The texture of a head: pores, freckles, blush, brows, stubble and lips, with cloth beside them.

The texture is painted once per person with numpy, so it is the same on every machine; the fragment program only reads
it. Skin is laid out by the canonical mesh's (x, y) seen from the front: 1 unit is `DENSITY` texels, so features follow
the shape of every person.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from xdub.render.avatar import load_avatar
from xdub.render.person import Person
from xdub.render.surfaces import smooth_step

SIZE = 512
"""Side of the texture in texels."""
DENSITY = 128.0
"""Texels per canonical unit on the skin."""
LEFT, TOP = -1.0, 8.6
"""Canonical x of column 0 and y of row 0."""
SKIN_ROWS, SKIN_COLUMNS = 448, 256
"""Size of the skin in the texture."""
WHITE = (1.5 / 512, 510.5 / 512)
"""Texture coordinates u, v of a white texel in the last rows."""
RANGE = 2.0
"""Largest factor on the vertex colour that a texel can hold."""


def skin_uv(canonical: np.ndarray) -> np.ndarray:
    """Compute the skin's texture coordinates [V,2] of canonical positions [V,3]."""
    column = np.clip((canonical[:, 0] - LEFT) * DENSITY, 1, SKIN_COLUMNS - 2)
    row = np.clip((TOP - canonical[:, 1]) * DENSITY, 1, SKIN_ROWS - 2)
    return np.stack([column, row], 1) / SIZE


def cloth_uv(canonical: np.ndarray) -> np.ndarray:
    """Compute the cloth's texture coordinates [V,2] in the right half: 36 texels a unit across, 110 down."""
    column = np.clip(384 + canonical[:, 0] * 36, 258, 510)
    row = np.clip((6.6 - canonical[:, 1]) * 110, 1, 440)
    return np.stack([column, row], 1) / SIZE


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Draw smooth noise about 0 with unit variance and features of `cell` texels."""
    small = rng.normal(size=(int(shape[0] / cell) + 4, int(shape[1] / cell) + 4))
    big = zoom(small, cell, order=3, grid_mode=True, mode="nearest")[: shape[0], : shape[1]]
    return big / big.std()


@lru_cache(maxsize=1)
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return the canonical |x| and y of every skin texel."""
    rows, columns = np.mgrid[0:SKIN_ROWS, 0:SKIN_COLUMNS] + 0.5
    return np.abs(LEFT + columns / DENSITY), TOP - rows / DENSITY


@lru_cache(maxsize=1)
def lip_map() -> np.ndarray:
    """Return the red of the lips [SKIN_ROWS,SKIN_COLUMNS] in 0..1, from the canonical landmarks."""
    import cv2

    avatar = load_avatar()
    points = avatar.base[avatar.landmark_ids[48:60], :2].astype(np.float64)
    points = points + [[0, 0]]
    points[1:6, 1] += 0.012
    points[7:12, 1] -= 0.012
    fine = 4
    pixels = np.stack([(points[:, 0] - LEFT), (TOP - points[:, 1])], 1) * DENSITY * fine
    closed = np.concatenate([pixels, pixels[:1]])
    t = np.linspace(0, len(pixels), 200, endpoint=False)
    curve = np.stack([np.interp(t, np.arange(len(closed)), closed[:, k]) for k in (0, 1)], 1)
    mask = np.zeros((SKIN_ROWS * fine, SKIN_COLUMNS * fine), np.uint8)
    cv2.fillPoly(mask, [np.rint(curve).astype(np.int32)], 255)
    mask = mask.reshape(SKIN_ROWS, fine, SKIN_COLUMNS, fine).mean((1, 3)) / 255.0
    return gaussian_filter(mask, 1.3)


def _spot(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def paint(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Paint the texture [SIZE,SIZE,4] uint8: rgb is a factor on the vertex colour (128 is 1), alpha the gloss."""
    x, y = _grid()
    shape = x.shape
    fine, medium, coarse = noise(rng, shape, 2.2), noise(rng, shape, 7.0), noise(rng, shape, 34.0)
    skin = np.ones((*shape, 3))
    skin *= (1 + 0.018 * fine + 0.018 * medium + 0.02 * coarse)[..., None]
    red = 0.9 * _spot(x, y, 0.47, 6.92, 0.24, 0.22) + 0.7 * _spot(x, y, 0, 6.93, 0.14, 0.10)
    red += 0.35 * _spot(x, y, 0, 6.22, 0.2, 0.12) + 0.12 * coarse * (np.abs(coarse) > 0.3)
    skin *= 1 - np.clip(red, 0, 1.2)[..., None] * person.blush * np.array([0.0, 0.17, 0.17])
    spots = smooth_step(1.25, 1.9, noise(rng, shape, 3.4)) * smooth_step(-0.3, 1.0, coarse)
    spots *= np.clip(_spot(x, y, 0.3, 6.98, 0.5, 0.3) * 1.4, 0, 1) * person.freckles
    skin *= 1 - spots[..., None] * np.array([0.28, 0.4, 0.46])
    under_eyes = _spot(x, y, 0.3, 7.12, 0.16, 0.06)[..., None]
    skin *= 1 - 0.10 * (0.3 + person.age) * under_eyes
    lid = _spot(x, y, 0.31, 7.37, 0.22, 0.07)
    skin *= 1 - lid[..., None] * (0.1 + 0.35 * person.makeup) * np.array([0.7, 0.95, 0.9])
    nose, forehead = _spot(x, y, 0, 7.0, 0.15, 0.35), _spot(x, y, 0, 7.8, 0.5, 0.25)
    gloss = 0.55 + 0.25 * nose + 0.12 * forehead + 0.05 * medium
    gloss *= person.shine

    beard = smooth_step(6.86, 6.70, y - 0.55 * smooth_step(0.42, 0.66, x)) * smooth_step(5.9, 6.15, y)
    beard = np.clip(beard - 0.8 * _spot(x, y, 0.30, 6.78, 0.10, 0.12), 0, 1)
    grain = np.clip(0.72 + 0.13 * fine + 0.08 * medium, 0, 1)
    beard *= (1 - 0.8 * smooth_step(0.48, 0.66, x)) * grain * person.stubble
    _mix(skin, beard, person.hair * 0.6 / person.skin)

    along = (x - 0.12) / 0.44
    inner = np.clip(along, 0, 1)
    arch = 7.487 + person.brow_height + 0.085 * np.sin(inner * 2.4) - 0.03 * inner
    thick = person.brow_thick * (1 - 0.6 * inner)
    direction = [(y * 60 + x * 40) % 290, (x * 170 - y * 120) % 290]
    strokes = map_coordinates(noise(rng, (300, 300), 1.5), direction, order=1)
    brow = (
        smooth_step(1.15, 0.45, np.abs(y - arch) / thick)
        * smooth_step(-0.06, 0.12, along)
        * smooth_step(1.1, 0.8, along)
    )
    _mix(skin, np.clip(brow * (0.86 + 0.10 * strokes), 0, 1) * 0.9, person.brow / person.skin)

    lip = lip_map()
    crease = 1 + 0.06 * noise(rng, shape, 2.0)
    _mix(skin, lip * 0.94, (person.lips / person.skin)[None, None] * crease[..., None])
    gloss = gloss * (1 - lip) + lip * (0.9 + 0.5 * person.makeup)

    texture = np.ones((SIZE, SIZE, 4))
    texture[..., 3] = 0.0
    texture[:SKIN_ROWS, :SKIN_COLUMNS, :3] = skin
    texture[:SKIN_ROWS, :SKIN_COLUMNS, 3] = gloss / RANGE
    texture[:SKIN_ROWS, SKIN_COLUMNS:, :3] = _cloth(person, rng)
    texture[..., :3] /= RANGE
    texture[-8:, :, :3] = 1.0 / RANGE
    return np.clip(np.rint(texture * 255), 0, 255).astype(np.uint8)


def _mix(image: np.ndarray, amount: np.ndarray, colour: np.ndarray) -> None:
    """Blend a colour into the image in place, with weight `amount` 0..1."""
    image += amount[..., None] * (np.minimum(colour, RANGE) - image)


def _cloth(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Paint woven cloth, plain, striped or chequered, as a factor on its colour."""
    rows, columns = np.mgrid[0:SKIN_ROWS, 0:256]
    weave = 1 + 0.05 * noise(rng, rows.shape, 1.6) + 0.06 * noise(rng, rows.shape, 20.0)
    if person.cloth_pattern == 1:
        stripe = (rows // 14) % 2
    elif person.cloth_pattern == 2:
        stripe = ((rows // 20 + columns // 9) % 2) * 0.6
    else:
        stripe = np.zeros(rows.shape)
    other = np.minimum(person.cloth_two / person.cloth, RANGE)
    return (1 + stripe[..., None] * (other - 1)) * weave[..., None]
