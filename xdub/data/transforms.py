"""The face crop: a box per frame from landmarks that do not move in speech, the crop, and its paste into the picture.

A box is (cx, cy, side) in picture px. Coordinates are continuous (see clip.py): pixel i spans [i, i + 1].
The box ignores lips and jaw, because a box that followed them would leak the old speech (paper B.2, mask setting).
"""

from __future__ import annotations

import numpy as np

from xdub.errors import UserError
from xdub.perception.landmarks import EYE_CORNERS, EYE_TO_NOSE, NOSE_BASE

# Proportions of adults in units of the distance between the eye centres (about 63 mm): nose base 0.76 below the eyes,
# mouth 1.15, chin 1.85, open chin 2.2; brows up to 0.45 above; face 2.2 wide, mouth 0.8 wide.
SIDE = 2.75
"""Side of the box in eye distances: 1.25 face widths; the mouth is 0.3 of it."""
DROP = 0.87
"""Distance from the eyes down to the box's centre; the box spans 0.5 above to 2.25 below the eyes."""


def crop_boxes(landmarks68: np.ndarray, *, scale: float = 1.0, smooth: float = 5.0) -> np.ndarray:
    """Compute boxes [F,3] float32 (cx, cy, side) from landmarks [F,68,2] in px (iBUG-68; nan without a face).

    Only eye corners and nose base are read. Missing frames are interpolated, then a Gaussian of `smooth` frames
    smooths the boxes. Raise UserError if no frame has a face.
    """
    points = np.asarray(landmarks68, np.float64)[:, [*EYE_CORNERS, NOSE_BASE]]
    valid = np.asarray(np.isfinite(points).all(axis=(1, 2)))
    if not valid.any():
        raise UserError("no face in any frame: the crop needs at least one frame with landmarks")
    points = points[valid]
    right, left, nose = points[:, 0:2].mean(1), points[:, 2:4].mean(1), points[:, 4]
    eyes = (right + left) / 2
    # A turn of the head shortens one of the two distances only, so the longer one determines the size.
    unit = np.maximum(np.linalg.norm(left - right, axis=1), np.linalg.norm(nose - eyes, axis=1) / EYE_TO_NOSE)
    centre = eyes + (DROP / EYE_TO_NOSE) * (nose - eyes)
    boxes = np.concatenate([centre, SIDE * scale * unit[:, None]], axis=1)
    frame = np.arange(len(valid))
    boxes = np.stack([np.interp(frame, frame[valid], column) for column in boxes.T], axis=1)
    return _gaussian(boxes, smooth).astype(np.float32)


def crop(frames: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Cut crops [F,size,size(,C)] of pictures [F,H,W(,C)], uint8 or float32; outside, the picture's edge is repeated.

    A smaller crop averages the area of each pixel, which avoids aliasing; a larger one is bicubic.
    """
    return np.stack([_crop_one(frame, box, size) for frame, box in zip(frames, boxes, strict=True)])


def crop_points(points: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Convert points [F,N,2] from picture px to crop px of the same boxes."""
    corner = boxes[:, None, :2] - boxes[:, None, 2:] / 2
    return ((points - corner) * (size / boxes[:, None, 2:])).astype(np.float32)


def crop_mesh(mesh: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Convert a mesh [F,N,3], whose z is in px too, from picture px to crop px of the same boxes."""
    depth = mesh[..., 2:] * (size / boxes[:, None, 2:])
    return np.concatenate([crop_points(mesh[..., :2], boxes, size), depth], axis=2).astype(np.float32)


def full_alpha(mask: np.ndarray, box: np.ndarray, shape: tuple[int, int], feather: float) -> np.ndarray:
    """Compute blend weights [H,W] float32 for `paste`: a crop mask [s,s] (bool or 0..1), in the picture and feathered.

    `feather` is the Gaussian's sigma in picture px, so the seam is equally soft at every face size. The weight falls
    to zero inside the box for any mask, so the crop's border is never visible.
    """
    import cv2

    height, width = shape
    alpha = np.zeros(shape, np.float32)
    x0, y0, x1, y1 = _roi(box, shape)
    if x0 >= x1 or y0 >= y1:
        return alpha
    pad = int(np.ceil(3 * feather))
    matrix = _to_crop(box, len(mask), offset=(x0 - pad, y0 - pad))
    area = (x1 - x0 + 2 * pad, y1 - y0 + 2 * pad)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # The weight outside of the crop is 0.
    warped = cv2.warpAffine(mask.astype(np.float32), matrix, area, flags=flags)
    if feather > 0:
        # The distance to the box's border, 1 from 3 sigma inwards, prevents a blur across the border.
        warped = cv2.GaussianBlur(warped, (2 * pad + 1, 2 * pad + 1), feather)
        corner, side = box[:2] - box[2] / 2, float(box[2])
        xs = np.arange(x0 - pad, x1 + pad) + 0.5 - corner[0]
        ys = np.arange(y0 - pad, y1 + pad) + 0.5 - corner[1]
        edge_x = np.clip(np.minimum(xs, side - xs) / (3 * feather), 0, 1)
        edge_y = np.clip(np.minimum(ys, side - ys) / (3 * feather), 0, 1)
        warped *= (edge_y[:, None] * edge_x[None]).astype(np.float32)
    alpha[y0:y1, x0:x1] = warped[pad : pad + y1 - y0, pad : pad + x1 - x0]
    return np.clip(alpha, 0, 1)


def paste(full: np.ndarray, crop: np.ndarray, box: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Paste a crop [s,s,3] at its box into a picture [H,W,3] uint8, weighted by alpha [H,W].

    This is the sub-pixel inverse of `crop`. Pixels with weight 0 are returned bit for bit.
    """
    import cv2

    out = full.copy()
    x0, y0, x1, y1 = _roi(box, full.shape[:2])
    if x0 >= x1 or y0 >= y1:
        return out
    matrix = _to_crop(box, len(crop), offset=(x0, y0))
    size = (x1 - x0, y1 - y0)
    # If the paste shrinks the crop, average its pixels.
    if box[2] < len(crop):
        matrix, size, times = _finer(matrix, size, len(crop) / float(box[2]))
    else:
        times = 1
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(crop.astype(np.float32), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if times > 1:
        back = cv2.resize(back, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    weight = alpha[y0:y1, x0:x1, None].astype(np.float32)
    mixed = weight * back + (1 - weight) * full[y0:y1, x0:x1]
    out[y0:y1, x0:x1] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return out


def _crop_one(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    import cv2

    step = float(box[2]) / size
    # Sample each picture pixel of a crop pixel, then average.
    times = max(1, int(np.ceil(step)))
    # The matrix maps the crop to the picture.
    matrix = np.linalg.inv(np.vstack([_to_crop(box, size * times), [0, 0, 1]]))[:2]
    flags = (cv2.INTER_LINEAR if times > 1 else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(frame, matrix, (size * times,) * 2, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) if times > 1 else fine


def _to_crop(box: np.ndarray, size: int, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return the affine map [2,3] from pixel indices of the picture, starting at `offset`, to those of a crop."""
    ratio = size / float(box[2])
    corner = np.asarray(box[:2], np.float64) - float(box[2]) / 2
    # Indices count pixel centres.
    shift = ratio * (0.5 + np.asarray(offset, np.float64) - corner) - 0.5
    return np.array([[ratio, 0, shift[0]], [0, ratio, shift[1]]])


def _finer(
    matrix: np.ndarray, size: tuple[int, int], ratio: float
) -> tuple[np.ndarray, tuple[int, int], int]:
    """Return the map at a finer sampling, with the larger size and the whole factor between both."""
    times = int(np.ceil(ratio))
    fine = matrix.copy()
    fine[:, :2] /= times
    fine[:, 2] += matrix[:, :2].sum(1) * (0.5 / times - 0.5)
    return fine, (size[0] * times, size[1] * times), times


def _roi(box: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 of the picture pixels that the box touches."""
    low = np.floor(np.asarray(box[:2]) - box[2] / 2)
    high = np.ceil(np.asarray(box[:2]) + box[2] / 2)
    height, width = shape
    return max(0, int(low[0])), max(0, int(low[1])), min(width, int(high[0])), min(height, int(high[1]))


def _gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth [F,K] along F; the kernel is renormalised at the ends, so values do not decay towards zero."""
    from scipy.ndimage import gaussian_filter1d

    if sigma <= 0:
        return values
    total = gaussian_filter1d(np.ones(len(values)), sigma, mode="constant")
    return gaussian_filter1d(values, sigma, axis=0, mode="constant") / total[:, None]
