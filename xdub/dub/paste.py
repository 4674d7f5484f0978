"""Pasting of the dubbed crop into the original picture without a visible border.

The model works on S x S px with a lossy codec; the picture is larger and sharp. Pasting the whole crop would blur
unchanged skin and spread the model's grain over the lower face, so only changed pixels are pasted. The change is the
difference between the crop and the codec's rendering of the source, in which the codec's losses cancel. A pixel is
changed where the difference exceeds the model's grain, which is measured outside of the face mask. The rest of the face
keeps the source's pixels plus the smooth part of the difference, so that cheeks follow the new lips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from xdub.dub.feather import blur, feather_inside

STANDS_OUT = (1.5, 2.5)
"""Change relative to the model's grain: below the first value the source's pixels stay, above the second none stays."""
FAR = 2.0
"""Factor on the grain far from mouth and chin."""
CHIN = 0.3
"""Distance of the chin below the lips, as a share of the crop's side."""
LEAST_GRAIN = 2.5
"""Smallest grain in grey levels: a perfect model has none, and changes of a few levels must not count."""


@dataclass(frozen=True)
class Patch:
    """Pixels and weights with which one frame is pasted."""

    picture: np.ndarray
    """float32 [S,S,3], 0..255: the generated crop, its colours matched to the source."""
    weight: np.ndarray
    """float32 [S,S] in [0, 1]: share of the crop in the result; 0 where the picture's own pixels stay."""
    shade: np.ndarray
    """float32 [S,S,3]: smooth brightness that is added to the picture's own pixels; 0 outside of the mask."""


def make_patches(
    generated: np.ndarray, rendered: np.ndarray, mask: np.ndarray, lips: np.ndarray, feather: float
) -> list[Patch]:
    """Compute the patches of consecutive frames.

    Args:
        generated: float32 [F,S,S,3] in 0..255.
        rendered: float32 [F,S,S,3] in 0..255, the source crop, encoded and decoded by the codec.
        mask: bool [F,S,S], the jaw-fixed face without occluders: nothing changes outside.
        lips: bool [F,S,S], the source's mouth, which is replaced completely.
        feather: sigma of the Gaussian that feathers the mask, px of the crop (paper B.3).
    """
    size = generated.shape[1]
    change = generated - rendered
    gate = change_gate(change, mask, expected_zone(lips), size / 20)
    gate = np.maximum(gate, np.clip(2 * blur(lips, size / 40), 0, 1))
    drift = colour_drift(change, mask, size / 10)
    inside = inward(mask, feather)
    shade = inside[..., None] * blur(change - drift, size / 20)
    parts = zip(generated - drift, inside * gate, shade, strict=True)
    return [Patch(picture, weight, smooth) for picture, weight, smooth in parts]


def expected_zone(lips: np.ndarray) -> np.ndarray:
    """Return weights [F,S,S] in [0, 1] of mouth and chin, where speech changes a face."""
    size = lips.shape[1]
    zone = lips.copy()
    for down in range(1, round(CHIN * size)):
        zone[:, down:] |= lips[:, :-down]
    return np.clip(2 * blur(zone, size / 12), 0, 1)


def change_gate(change: np.ndarray, mask: np.ndarray, zone: np.ndarray, sigma: float) -> np.ndarray:
    """Return weights [F,S,S] in [0, 1] where the RMS change (over a Gaussian of ``sigma`` px and a frame) is large.

    Outside of the ``zone`` [F,S,S] the change must be larger.
    """
    power = blur((change**2).mean(-1), sigma)
    level = np.sqrt(gaussian_filter1d(power, 1.0, axis=0, mode="nearest"))
    outside = ~mask & ~_border(~mask, round(2 * sigma))
    grain = float(np.median(level[outside])) if outside.any() else 0.0
    low, high = STANDS_OUT
    ratio = level / (max(grain, LEAST_GRAIN) * (zone + FAR * (1 - zone)))
    return np.clip((ratio - low) / (high - low), 0, 1)


def colour_drift(change: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Return the low-frequency colour [F,S,S,3] of the change along the mask's border, continued into the face.

    At the border nothing should change, so a change there is an error in colour.
    """
    still = _border(mask, max(2, round(sigma / 2))).astype(np.float32)
    total = still.sum(axis=(1, 2))[:, None, None, None]
    mean = (change * still[..., None]).sum(axis=(1, 2), keepdims=True) / np.maximum(total, 1)
    # Far from any still pixel the estimate fades to the mean of all still pixels, not to a ratio of two small numbers.
    faint = 0.02
    return (blur(change * still[..., None], sigma) + faint * mean) / (blur(still, sigma) + faint)[..., None]


def inward(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Feather masks [F,S,S] so that they are 0 outside of the mask and on the crop's border."""
    pad = int(np.ceil(3 * sigma)) + 1
    framed = np.pad(mask[:, 1:-1, 1:-1], ((0, 0), (pad, pad), (pad, pad)))
    return feather_inside(framed, sigma)[:, pad - 1 : 1 - pad, pad - 1 : 1 - pad]


def paste_patch(full: np.ndarray, patch: Patch, box: np.ndarray) -> np.ndarray:
    """Return the picture uint8 [H,W,3] with the patch at its box (cx, cy, side); pixels of weight 0 keep every bit."""
    import cv2

    height, width = full.shape[:2]
    # A crop pixel has this side in picture px.
    step = float(box[2]) / len(patch.weight)
    x0, y0 = (max(0, int(np.floor(c - box[2] / 2))) for c in box[:2])
    x1, y1 = (
        min(limit, int(np.ceil(c + box[2] / 2))) for c, limit in zip(box[:2], (width, height), strict=True)
    )
    if x0 >= x1 or y0 >= y1:
        return full
    # The centre of picture pixel p lies at (p + 0.5 - corner) / step - 0.5 in indices of the crop.
    shift = (np.array([x0, y0]) + 0.5 - (box[:2] - box[2] / 2)) / step - 0.5
    matrix = np.array([[1 / step, 0, shift[0]], [0, 1 / step, shift[1]]])

    def warp(image: np.ndarray, kernel: int) -> np.ndarray:
        flags = kernel | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    picture = patch.picture
    if step < 1:
        # The crop shrinks in the picture, so frequencies that the picture cannot hold are removed.
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / step)
    weight = warp(patch.weight.astype(np.float32), cv2.INTER_LINEAR)[..., None]
    source = full[y0:y1, x0:x1]
    shaded = source + warp(patch.shade.astype(np.float32), cv2.INTER_LINEAR)
    mixed = weight * warp(picture, cv2.INTER_CUBIC) + (1 - weight) * shaded
    out = full.copy()
    out[y0:y1, x0:x1] = np.clip(np.rint(mixed), 0, 255)
    return out


def _border(mask: np.ndarray, px: int) -> np.ndarray:
    """Return the masks' pixels [F,S,S] at most ``px`` from their border; the crop's own border does not count."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    inner = [
        cv2.erode(m.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1) for m in mask
    ]
    return mask & ~np.stack(inner).astype(bool)
