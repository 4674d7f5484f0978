"""Face crops of the published editors: a square around the bounds of all landmarks, inside the picture.

X-Dub's and TBDub's editors were trained on these crops, which show more of the head than those of
`xdub.data.transforms`. The bounds are those of MediaPipe's mesh, as TBDub uses them. The releases smooth each landmark
and then compute the bounds; here the bounds themselves are smoothed by the same filters, so that memory holds four
numbers a frame. Both agree where the outermost landmarks do not change. The releases round boxes to whole pixels; our
crops do not.

Boxes (x0, y0, x1, y1) and (cx, cy, side) are px of the picture, float64 [F, 4] and [F, 3].
"""

from __future__ import annotations

import numpy as np

from xdub.errors import UserError
from xdub.perception.landmarks import LANDMARK_BOX

MARGIN = 1.45
"""Side of the square, as a multiple of the longer side of the bounds."""
PASSES = (15, 19, 23, 27, 31)
"""Frames of the Savitzky-Golay filters that smooth the bounds, one after another."""
MEANS = (17, 7)
"""Frames of the running means behind these filters."""
STILL = 0.16
"""Share of the union of all boxes within which every edge must stay, so that one fixed box serves all frames."""
SAME_SIZE = 0.1
"""Largest deviation of a side from the mean side at which all frames get the largest side."""
ORDER = 2
"""Order of the Savitzky-Golay filters."""
LONG = 25
"""Frames of the Savitzky-Golay filter of boxes that move."""


def landmark_boxes(bounds: np.ndarray, width: int, height: int, *, scale: float = 1.0) -> np.ndarray:
    """Compute boxes [F, 3] float32 (cx, cy, side) of one face in pictures of ``width`` x ``height`` px.

    Args:
        bounds: [F, 4] x0, y0, x1, y1 of all landmarks; rows without a face are nan and are interpolated.
        scale: factor on the side.

    Raises:
        UserError: no frame has a face.
    """
    values = np.asarray(bounds, np.float64)
    valid = np.isfinite(values).all(1)
    if not valid.any():
        raise UserError("no face in any frame: the crop needs at least one frame with landmarks")
    frame = np.arange(len(values))
    values = np.stack([np.interp(frame, frame[valid], column[valid]) for column in values.T], 1)
    for window in PASSES:
        values = savitzky_golay(values, window, mode="mirror")
    for window in MEANS:
        values = running_mean(values, window)
    squares = running_mean(_squares(values, width, height, scale), 7)
    sides = squares[:, 2]
    union = _edges(squares)
    low, high = union[:, :2].min(0), union[:, 2:].max(0)
    room = STILL * (high - low)
    if (union[:, :2] - low <= room).all() and (high - union[:, 2:] <= room).all():
        boxes = _fixed(squares)
    elif (np.abs(sides - sides.mean()) <= SAME_SIZE * sides.mean()).all():
        boxes = _same_size(squares)
    else:
        boxes = _moving(squares, width, height)
    return _inside(boxes, width, height).astype(np.float32)


def boxes_from_template(template: np.ndarray, width: int, height: int, *, scale: float = 1.0) -> np.ndarray:
    """Return boxes [F, 3] float32 from the boxes of `xdub.data.transforms` of scale 1, for heads without a face mesh.

    They have the mean side and position that `landmark_boxes` has beside those, and like those they ignore the jaw.
    """
    side, rise = LANDMARK_BOX
    x, y, size = np.asarray(template, np.float64).T
    boxes = np.stack([x, y - rise * size, side * scale * size], 1)
    return _inside(boxes, width, height).astype(np.float32)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each row [F, K] and its neighbours within ``window`` frames; the ends have fewer of them."""
    half = window // 2
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0)])
    frame = np.arange(len(values))
    first, stop = np.maximum(0, frame - half), np.minimum(len(values), frame + half + 1)
    return (sums[stop] - sums[first]) / (stop - first)[:, None]


def savitzky_golay(values: np.ndarray, window: int, *, mode: str) -> np.ndarray:
    """Smooth [F, K] along F by parabolas over ``window`` frames, or fewer; ``mode`` continues the ends."""
    from scipy.signal import savgol_filter

    window = min(window, len(values) - (len(values) + 1) % 2)
    # A parabola passes through three points unchanged.
    if window <= ORDER + 1:
        return values
    return savgol_filter(values, window, ORDER, axis=0, mode=mode)


def _squares(bounds: np.ndarray, width: int, height: int, scale: float) -> np.ndarray:
    """Return squares (cx, cy, side) around bounds clipped to the picture, inside the picture."""
    clipped = np.clip(bounds, 0, (width, height, width, height))
    low, high = clipped[:, :2], clipped[:, 2:]
    side = MARGIN * scale * (high - low).max(1, keepdims=True)
    return _inside(np.concatenate([(low + high) / 2, side], 1), width, height)


def _inside(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Limit sides to the picture's shorter side, then move boxes into the picture."""
    side = np.minimum(boxes[:, 2:], min(width, height))
    centre = np.clip(boxes[:, :2], side / 2, (width, height) - side / 2)
    return np.concatenate([centre, side], 1)


def _edges(boxes: np.ndarray) -> np.ndarray:
    """Return x0, y0, x1, y1 of boxes (cx, cy, side)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _fixed(squares: np.ndarray) -> np.ndarray:
    """Return one box for all frames, the square around the union of all squares."""
    edges = _edges(running_mean(squares, 5))
    low, high = edges[:, :2].min(0), edges[:, 2:].max(0)
    return np.repeat(np.concatenate([(low + high) / 2, [(high - low).max()]])[None], len(squares), 0)


def _same_size(squares: np.ndarray) -> np.ndarray:
    """Return boxes of the largest side with smoothed centres."""
    smoothed = running_mean(squares, 5)
    centre = savitzky_golay(running_mean(smoothed[:, :2], 15), LONG, mode="nearest")
    for window in (11, 7, 3):
        centre = running_mean(centre, window)
    return np.concatenate([centre, np.full((len(squares), 1), smoothed[:, 2].max())], 1)


def _moving(squares: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return boxes whose upper left corners and sides are smoothed apart."""
    smoothed = savitzky_golay(running_mean(running_mean(squares, 5), 11), LONG, mode="nearest")
    smoothed = running_mean(running_mean(smoothed, 7), 3)
    side = running_mean(savitzky_golay(running_mean(smoothed[:, 2:], 11), LONG, mode="nearest"), 7)
    corner = np.maximum(0, smoothed[:, :2] - smoothed[:, 2:] / 2)
    side = np.minimum(side, ((width, height) - corner).min(1, keepdims=True))
    boxes = np.concatenate([corner + side / 2, side], 1)
    for window in (11, 7, 3):
        boxes = running_mean(boxes, window)
    return boxes
