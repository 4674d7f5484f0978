"""Occluders found by their appearance, without networks: objects that cover the person's face or move over it.

The colours of a clip are compared on a grid that follows the head with the person's usual colour at each cell. Cells
that differ and are joined to the edge of the face belong to an object that reaches over the face. Its colours, where
they differ from those of the face, then extend the object to parts that were never uncovered.
"""

from __future__ import annotations

import numpy as np

from xdub.masks.face_shape import FaceViews
from xdub.masks.face_texture import CELL, FaceTexture, face_texture

WORK = 128
"""Side in px at which crops are compared; larger crops are shrunk."""
CHROMA = 1.5
"""Weight of a and b against L, because light changes L more than the others."""
SKINNIEST = 0.4
"""Share of the frames, those whose colour at a cell is nearest to skin, that show the cell uncovered."""
LEAST_DIFFERENCE = 6.0
"""Smallest difference of colour from the usual one, in units of L, of a covered cell."""
NO_SKIN = 12.0
"""Distance by which a cell's median colour is further from skin than in its skinniest frames if an object covers the
cell most of the time."""
WEAK = 0.5
"""Share of that difference at which cells beside covered ones are covered too."""
NOISE = 5.0
"""Multiple of a cell's usual difference above which the cell is covered."""
RIM = 0.8
"""Width in cm of the face's edge, where hair and background appear when the head turns."""
EDGE = 0.07
"""The same in pixels, as a share of the square root of the mask's area."""
LEAST_AREA = 0.012
"""Smallest share of the face that an object covers in a frame."""
CLOSE = 1.2
"""Widest gap in cm inside an object that is filled."""
BINS = 12
"""Bins of each axis of the histograms of colours."""
OWN_COLOUR = 0.8
"""Smallest probability at which a colour is the object's and not the face's."""


class LightFinder:
    """Finder of occluders by their appearance; equal clips have equal masks."""

    name = "light"

    def find(self, views: FaceViews, face: np.ndarray) -> np.ndarray:
        """Return bool [F, S, S]; see `OccluderFinder.find`."""
        return find_by_appearance(views, face)


def find_by_appearance(views: FaceViews, face: np.ndarray) -> np.ndarray:
    """Return the objects in front of a face, bool [F, S, S]; all False in frames without a face or its mesh.

    ``face`` bool [F, S, S] is the face mask, and objects are marked inside it alone.
    """
    import cv2

    count, size = face.shape[:2]
    result = np.zeros((count, size, size), bool)
    if not face.any() or not np.isfinite(views.mesh).all(axis=(1, 2)).any():
        return result
    work = min(WORK, size)
    lab = np.stack([_lab(frame, work) for frame in views.frames])
    small = FaceViews(
        frames=views.frames,
        landmarks=views.landmarks * (work / size),
        mesh=views.mesh * (work / size),
        person=views.person,
    )
    texture = face_texture(small, lab)
    if not texture.valid.any():
        return result
    covered = _covered(texture)
    if not covered.any():
        return result
    inside = np.stack([_resize(mask, work) for mask in face])
    objects = _with_own_colours(_to_pixels(texture, covered, work), lab, inside, texture, covered)
    for n in np.flatnonzero(objects.any(axis=(1, 2))):
        soft = cv2.resize(objects[n].astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        result[n] = soft > 0.5
    return result & face


def _lab(frame: np.ndarray, work: int) -> np.ndarray:
    """Return a crop as weighted Lab [work, work, 3] float32."""
    import cv2

    if len(frame) != work:
        frame = cv2.resize(frame, (work, work), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) * (1, CHROMA, CHROMA)


def _resize(mask: np.ndarray, work: int) -> np.ndarray:
    import cv2

    return cv2.resize(mask.astype(np.uint8), (work, work), interpolation=cv2.INTER_NEAREST).astype(bool)


def _covered(texture: FaceTexture) -> np.ndarray:
    """Return the cells bool [F, H, W] whose colour is not the person's own and that are joined to the face's edge."""
    colours, mouth = texture.lab[texture.valid], texture.mouth[texture.valid]
    import cv2

    usual, expected = _usual(texture, colours, mouth), texture.face & ~texture.features & ~mouth
    difference = np.linalg.norm(colours - usual - _light(colours - usual, expected), axis=-1)
    usual_difference = np.median(difference, axis=0)
    # A cell that an object covers half of the time has no usual difference of its own.
    bound = np.percentile(usual_difference[texture.face & ~texture.features], 75)
    limit = np.maximum(LEAST_DIFFERENCE, NOISE * np.minimum(usual_difference, bound))
    strong, weak = (difference > limit) & expected, (difference > WEAK * limit) & expected
    radius = round(RIM / CELL)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    core = (
        cv2.erode(np.pad(texture.face, radius).astype(np.uint8), kernel)[radius:-radius, radius:-radius] > 0
    )
    covered = np.zeros(texture.lab.shape[:3], bool)
    covered[texture.valid] = np.stack(
        [_joined_to_edge(*masks, texture.face, core) for masks in zip(strong, weak, strict=True)]
    )
    return covered


def _usual(texture: FaceTexture, colours: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """Return the uncovered colour [H, W, 3] of each cell.

    The colour is the median of the frames in which the cell is not the mouth. Where an object covers the cell most of
    the time, the colour is the mean of the skinniest frames.
    """
    middle = _median(colours, mouth)
    # Cheeks, nose and forehead are most of the upper half of the face.
    upper = texture.face & ~texture.features
    upper[len(upper) * 6 // 10 :] = False
    skin = np.median(middle[upper], axis=0)
    # A cell is compared with skin of its own brightness, because shadows are skin too.
    weight = np.array((0.5, 1, 1))
    distance = np.linalg.norm((colours - skin) * weight, axis=-1)
    distance[mouth] = np.inf
    rank = np.argsort(np.argsort(distance, axis=0, kind="stable"), axis=0)
    chosen = rank < max(1, round(SKINNIEST * len(colours)))
    nearest = np.einsum("fhw,fhwc->hwc", chosen, colours) / chosen.sum(axis=0)[..., None]
    far = np.linalg.norm((middle - skin) * weight, axis=-1) - np.linalg.norm(
        (nearest - skin) * weight, axis=-1
    )
    return np.where((far > NO_SKIN)[..., None], nearest, middle)


def _median(colours: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """Return the median colour [H, W, 3] over the frames in which a cell is not the mouth, or over all frames."""
    count = (~mouth).sum(axis=0)
    ordered = np.sort(np.where(mouth[..., None], np.inf, colours), axis=0)
    index = np.maximum(0, (count - 1) // 2)[None, ..., None]
    middle = np.take_along_axis(ordered, np.broadcast_to(index, (1, *ordered.shape[1:])), axis=0)[0]
    return np.where((count > 0)[..., None], middle, np.median(colours, axis=0))


def _light(change: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the change of light [F, H, W, 3]: a robust plane through the change of colour of each frame.

    ``expected`` bool [F, H, W] are the cells that usually have their own colour.
    """
    height, width = change.shape[1:3]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y], axis=-1)
    planes = np.zeros_like(change)
    for n, frame in enumerate(change):
        rows, values = basis[expected[n]], frame[expected[n]]
        weight = np.ones(len(rows))
        for _ in range(4):
            weighted = rows * weight[:, None]
            slope = np.linalg.lstsq(weighted.T @ rows, weighted.T @ values, rcond=None)[0]
            off = np.linalg.norm(values - rows @ slope, axis=1)
            weight = 1 / (1 + (off / 4) ** 2) ** 2
        planes[n] = basis @ slope
    return planes


def _joined_to_edge(strong: np.ndarray, weak: np.ndarray, face: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Return the parts of a weak mask [H, W] that reach from the face's edge into its core, with their gaps filled.

    A part is kept if it has enough strong cells in the core.
    """
    import cv2

    radius = max(1, round(CLOSE / 2 / CELL))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    opened = cv2.morphologyEx(weak.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel) & face
    count, labels = cv2.connectedComponents(closed, connectivity=8)
    kept = []
    for number in range(1, count):
        part = labels == number
        if (part & core & strong).sum() >= LEAST_AREA * face.sum() and (part & ~core).any():
            kept.append(number)
    return np.isin(labels, kept)


def _to_pixels(texture: FaceTexture, covered: np.ndarray, work: int) -> np.ndarray:
    """Return bool [F, work, work]: the pixels of the crops at the covered cells."""
    import cv2

    result = np.zeros((len(covered), work, work), np.uint8)
    for n in np.flatnonzero(covered.any(axis=(1, 2))):
        x, y = np.floor(texture.pixels[n][covered[n]]).astype(int).T
        within = (x >= 0) & (y >= 0) & (x < work) & (y < work)
        result[n, y[within], x[within]] = 1
        result[n] = cv2.morphologyEx(result[n], cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return result.astype(bool)


def _with_own_colours(
    objects: np.ndarray, lab: np.ndarray, inside: np.ndarray, texture: FaceTexture, covered: np.ndarray
) -> np.ndarray:
    """Extend objects [F, work, work] to joined pixels of colours that the objects have and the face does not have."""
    import cv2

    # Where an object covers the mouth, its colours lie on cells of the mouth.
    clean = texture.valid[:, None, None] & texture.face & ~texture.mouth & ~covered
    own = _histogram(texture.lab[covered & ~texture.mouth])
    faces = _histogram(texture.lab[clean])
    share = own / np.maximum(own + faces, 1e-9)
    probability = share[tuple(np.moveaxis(_bins(lab), -1, 0))]
    candidate = (probability > OWN_COLOUR) & inside | objects
    result = objects.copy()
    for n in np.flatnonzero(texture.valid):
        opened = cv2.morphologyEx(candidate[n].astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, labels = cv2.connectedComponents(opened, connectivity=4)
        least = LEAST_AREA * max(1, int(inside[n].sum()))
        # Hair at the edge of the face may have the object's colours, and an object reaches further in.
        depth = max(2, round(EDGE * np.sqrt(inside[n].sum())))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * depth + 1,) * 2)
        padded = np.pad(inside[n].astype(np.uint8), depth)
        core = cv2.erode(padded, kernel)[depth:-depth, depth:-depth].astype(bool)
        edge = inside[n] & ~core
        parts = [(number, labels == number) for number in range(1, count)]
        kept = [number for number, part in parts if (part & core).sum() >= least and (part & edge).any()]
        joined = np.isin(labels, kept) | objects[n]
        result[n] = cv2.morphologyEx(joined.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    return result


def _histogram(colours: np.ndarray) -> np.ndarray:
    """Return the smoothed shares [BINS, BINS, BINS] of weighted Lab colours [N, 3]."""
    from scipy.ndimage import gaussian_filter

    counts = np.zeros((BINS,) * 3)
    np.add.at(counts, tuple(_bins(colours).T), 1)
    counts = gaussian_filter(counts, 0.7)
    return counts / max(1.0, counts.sum())


def _bins(colours: np.ndarray) -> np.ndarray:
    """Return the bin [..., 3] of weighted Lab colours: L from 0 to 100, a and b from -60 to 60."""
    scaled = colours / (100, 120 * CHROMA, 120 * CHROMA) + (0, 0.5, 0.5)
    return np.clip((scaled * BINS).astype(int), 0, BINS - 1)
