"""Film strips: a few frames of a video side by side, and the same frames' mouths enlarged, as PNG data."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from xdub.perception.mouth_readout import patch_boxes


def pick_frames(opening: np.ndarray, count: int) -> np.ndarray:
    """Indices [count] in time order: evenly spaced slots, in each the frame farthest from its clip's median
    opening.

    Evenly spaced frames alone often show a half-open mouth throughout; extremes show whether the lips follow.
    """
    values = np.nan_to_num(np.abs(opening - np.nanmedian(opening)), nan=-1.0)
    edges = np.linspace(0, len(values), count + 1).round().astype(int)
    return np.array([a + int(values[a:b].argmax()) for a, b in zip(edges, edges[1:], strict=False) if b > a])


def strip(frames: np.ndarray, cell: int, gap: int = 3) -> np.ndarray:
    """[n,H,W,3] uint8 side by side, each ``cell`` px wide, parted by transparent gaps -> [h, w, 4] RGBA
    uint8.
    """
    n, height, width, _ = frames.shape
    high = max(1, round(cell * height / width))
    out = np.zeros((high, n * cell + (n - 1) * gap, 4), np.uint8)
    for i, frame in enumerate(frames):
        interpolation = cv2.INTER_AREA if width > cell else cv2.INTER_CUBIC
        left = i * (cell + gap)
        out[:, left : left + cell, :3] = cv2.resize(frame, (cell, high), interpolation=interpolation)
        out[:, left : left + cell, 3] = 255
    return out


def mouth_zoom(frames: np.ndarray, landmarks: np.ndarray, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Mouths [n,h,w,3] of frames [n,H,W,3] with landmarks [n,68,2]; nan rows show the frame's centre.

    Placed by eyes and nose alone, so that one video's landmarks show all its versions and lips move in a
    still picture.
    """
    height, width = size
    centres, halves, _ = patch_boxes(landmarks)
    known = np.isfinite(halves)
    half = float(np.median(halves[known])) if known.any() else frames.shape[2] / 4  # one scale: no breathing
    out = []
    for frame, centre, found in zip(frames, centres, known, strict=True):
        cx, cy = centre if found else (frame.shape[1] / 2, frame.shape[0] / 2)
        scale = width / (2 * half)
        matrix = np.array([[scale, 0, width / 2 - scale * cx], [0, scale, height / 2 - scale * cy]])
        zoomed = cv2.warpAffine(
            frame, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        out.append(zoomed)
    return np.stack(out)


def png(image: np.ndarray) -> bytes:
    """PNG file of RGB or RGBA uint8 [H,W,3|4]."""
    code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, code), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert ok
    return data.tobytes()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """``data:`` address that keeps the page in one file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
