"""The dubbed crop back into the original picture, so that nobody sees where it ends.

The model works on S x S px with a lossy codec; the picture is larger and sharp. Pasting all of the crop would blur skin
that never changed and carry the model's grain over the whole lower face. So the crop is pasted where it says
something new: there its difference to the codec's rendering of the source (in which the codec's losses cancel) stands
out from what the model does to pixels that nobody asked it to change, those outside of the face mask. The rest of the
face keeps the source's pixels and takes over the smooth part of that difference alone: cheeks go with the new lips,
not with the old ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from xdub.dub.feather import blur, feather_inside

STANDS_OUT = (1.5, 2.5)
"""Change relative to the model's grain between which a place goes over from the source's pixels to the new ones."""
FAR = 2.0
"""How much more it takes far from mouth and chin."""
CHIN = 0.3
"""Of the crop's side: how far the chin lies below the lips."""
LEAST_GRAIN = 2.5
"""Grey levels: with a perfect model, any change above a few levels is one."""


@dataclass(frozen=True)
class Patch:
    """What one frame needs to be pasted."""

    picture: np.ndarray
    """float32 [S,S,3], 0..255: the generated crop, its colours matched to the source."""
    weight: np.ndarray
    """float32 [S,S] in [0, 1]: how much of it is taken; 0 where the picture's own pixels stay."""
    shade: np.ndarray
    """float32 [S,S,3]: what those pixels are to be brighter, smooth; 0 outside of the mask."""


def make_patches(
    generated: np.ndarray, rendered: np.ndarray, mask: np.ndarray, lips: np.ndarray, feather: float
) -> list[Patch]:
    """Patches of consecutive frames.

    Args:
        generated: float32 [F,S,S,3] in 0..255.
        rendered: the source crop through the codec, likewise.
        mask: bool [F,S,S], the jaw-fixed face without occluders: nothing changes outside.
        lips: bool [F,S,S], where the source's mouth is: no trace of it may stay.
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
    """[F,S,S] in [0, 1]: mouth and chin, where speech changes a face."""
    size = lips.shape[1]
    zone = lips.copy()
    for down in range(1, round(CHIN * size)):
        zone[:, down:] |= lips[:, :-down]
    return np.clip(2 * blur(zone, size / 12), 0, 1)


def change_gate(change: np.ndarray, mask: np.ndarray, zone: np.ndarray, sigma: float) -> np.ndarray:
    """[F,S,S] in [0, 1]: where the root mean square change (over a Gaussian of ``sigma`` px and a frame) stands out.

    Outside of the ``zone`` [F,S,S] it has to stand out more.
    """
    power = blur((change**2).mean(-1), sigma)
    level = np.sqrt(gaussian_filter1d(power, 1.0, axis=0, mode="nearest"))
    outside = ~mask & ~_border(~mask, round(2 * sigma))
    grain = float(np.median(level[outside])) if outside.any() else 0.0
    low, high = STANDS_OUT
    ratio = level / (max(grain, LEAST_GRAIN) * (zone + FAR * (1 - zone)))
    return np.clip((ratio - low) / (high - low), 0, 1)


def colour_drift(change: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Low-frequency colour [F,S,S,3] of the change along the mask's border, where there should be none, continued
    into the face.
    """
    still = _border(mask, max(2, round(sigma / 2))).astype(np.float32)
    total = still.sum(axis=(1, 2))[:, None, None, None]
    mean = (change * still[..., None]).sum(axis=(1, 2), keepdims=True) / np.maximum(total, 1)
    faint = 0.02  # far from any still pixel the estimate fades to their mean, not to noise over nothing
    return (blur(change * still[..., None], sigma) + faint * mean) / (blur(still, sigma) + faint)[..., None]


def inward(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Feathered masks [F,S,S] that are 0 outside of the mask and on the crop's border."""
    pad = int(np.ceil(3 * sigma)) + 1
    framed = np.pad(mask[:, 1:-1, 1:-1], ((0, 0), (pad, pad), (pad, pad)))
    return feather_inside(framed, sigma)[:, pad - 1 : 1 - pad, pad - 1 : 1 - pad]


def paste_patch(full: np.ndarray, patch: Patch, box: np.ndarray) -> np.ndarray:
    """The picture uint8 [H,W,3] with the patch at its box (cx, cy, side); pixels of no weight bit for bit."""
    import cv2

    height, width = full.shape[:2]
    step = float(box[2]) / len(patch.weight)  # picture px per crop px
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
    if step < 1:  # the way back shrinks: take out what the picture cannot hold
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / step)
    weight = warp(patch.weight.astype(np.float32), cv2.INTER_LINEAR)[..., None]
    source = full[y0:y1, x0:x1]
    shaded = source + warp(patch.shade.astype(np.float32), cv2.INTER_LINEAR)
    mixed = weight * warp(picture, cv2.INTER_CUBIC) + (1 - weight) * shaded
    out = full.copy()
    out[y0:y1, x0:x1] = np.clip(np.rint(mixed), 0, 255)
    return out


def _border(mask: np.ndarray, px: int) -> np.ndarray:
    """The masks' pixels [F,S,S] at most ``px`` from their border; the crop's own border is none."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    inner = [
        cv2.erode(m.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1) for m in mask
    ]
    return mask & ~np.stack(inner).astype(bool)
