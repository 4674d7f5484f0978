"""The dubbed crop back into the original picture, so that nobody sees where it ends.

The model works on S x S px with a lossy codec; the picture is larger and sharp. Pasting the crop's pixels would blur
skin that never changed. So only the *change* is pasted: the generated crop minus the codec's rendering of the source
crop, in which the codec's losses cancel. Where the lips moved, the source's own fine detail shows the old lips and is
taken out; everywhere else it stays:

    out = source + alpha * ( up(generated - rendered) - (1 - keep) * (source - up(rendered)) )

with alpha the feathered jaw-fixed face mask (paper B.3), keep in [0, 1] how far the source's detail is still true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.dub.feather import blur, feather_inside

CHANGED = (5.0, 14.0)
"""Grey levels of local change between which the source's own detail fades out."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """What one frame needs to be pasted; S x S px of the crop, float32."""

    change: np.ndarray
    """[S,S,3]: generated - rendered, colours matched at the seam."""
    rendered: np.ndarray
    """[S,S,3]: the source crop through the codec, 0..255."""
    keep: np.ndarray
    """[S,S] in [0, 1]."""
    mask: np.ndarray
    """bool [S,S]: where the picture may change."""


def make_patches(
    generated: np.ndarray, rendered: np.ndarray, mask: np.ndarray, lips: np.ndarray
) -> list[Patch]:
    """Patches of a run of frames.

    Args:
        generated, rendered: float32 [F,S,S,3] in 0..255.
        mask: bool [F,S,S], the jaw-fixed face without occluders.
        lips: bool [F,S,S], where the source's mouth is.
    """
    size = generated.shape[1]
    change = generated - rendered
    change -= seam_drift(change, mask, sigma=size / 10)
    local = blur(np.abs(change).mean(-1), size / 50)
    low, high = CHANGED
    keep = 1 - np.clip((local - low) / (high - low), 0, 1)
    keep *= 1 - np.clip(2 * blur(_grown(lips, size // 20), size / 50), 0, 1)
    return [
        Patch(change=c, rendered=r, keep=k, mask=m)
        for c, r, k, m in zip(change, rendered, keep.astype(np.float32), mask, strict=True)
    ]


def seam_drift(change: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Low-frequency colour of ``change`` [F,S,S,3] along the mask's border, continued smoothly inwards.

    Nothing ought to change at the border; what does is a drift of colour or light, and would be seen as a patch.
    """
    border = np.stack([_border(m, max(2, round(sigma / 2))) for m in mask]).astype(np.float32)
    near = blur(border, sigma)
    # Far from any border the estimate fades to the border's mean instead of to noise divided by nothing.
    total = border.sum(axis=(1, 2), keepdims=True)
    mean = (change * border[..., None]).sum(axis=(1, 2), keepdims=True) / np.maximum(total, 1)[..., None]
    faint = 0.02
    return (blur(change * border[..., None], sigma) + faint * mean) / (near + faint)[..., None]


def paste_patch(full: np.ndarray, patch: Patch, box: np.ndarray, feather: float) -> np.ndarray:
    """The picture uint8 [H,W,3] with the patch at its box (cx, cy, side); pixels outside the mask bit for bit.

    ``feather``: sigma of the feathering, px of the crop.
    """
    import cv2

    height, width = full.shape[:2]
    size = len(patch.keep)
    step = float(box[2]) / size  # picture px per crop px
    x0, y0 = (max(0, int(np.floor(c - box[2] / 2))) for c in box[:2])
    x1, y1 = (
        min(limit, int(np.ceil(c + box[2] / 2))) for c, limit in zip(box[:2], (width, height), strict=True)
    )
    if x0 >= x1 or y0 >= y1:
        return full
    # Centre of picture pixel p lies at (p + 0.5 - corner) / step - 0.5 in indices of the crop.
    shift = (np.array([x0, y0]) + 0.5 - (box[:2] - box[2] / 2)) / step - 0.5
    matrix = np.array([[1 / step, 0, shift[0]], [0, 1 / step, shift[1]]])

    def warp(image: np.ndarray, kernel: int) -> np.ndarray:
        flags = kernel | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def up(image: np.ndarray) -> np.ndarray:
        if step < 1:  # the way back shrinks: take out what the picture cannot hold
            image = cv2.GaussianBlur(image, (0, 0), 0.4 / step)
        return warp(image, cv2.INTER_CUBIC)

    weight = warp(_inward(patch.mask, feather), cv2.INTER_LINEAR)[..., None]
    keep = warp(patch.keep, cv2.INTER_LINEAR)[..., None]
    source = full[y0:y1, x0:x1]
    value = source + weight * (up(patch.change) - (1 - keep) * (source - up(patch.rendered)))
    out = full.copy()
    out[y0:y1, x0:x1] = np.where(weight > 0, np.clip(np.rint(value), 0, 255), source).astype(np.uint8)
    return out


def _inward(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Feathered mask [S,S] that is 0 outside of the mask and on the crop's border."""
    framed = np.pad(
        mask[1:-1, 1:-1], 1 + round(3 * sigma)
    )  # zeros around: the ramp is made at the crop's border, too
    pad = round(3 * sigma)
    soft = feather_inside(framed[None], sigma)[0]
    return soft[pad : len(soft) - pad, pad : soft.shape[1] - pad]


def _grown(mask: np.ndarray, px: int) -> np.ndarray:
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    return np.stack([cv2.dilate(m.astype(np.uint8), kernel) > 0 for m in mask])


def _border(mask: np.ndarray, px: int) -> np.ndarray:
    """The mask's pixels at most ``px`` from its border; the crop's own border is none."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    eroded = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return mask & (eroded == 0)
