"""Film strips: a few frames of a video side by side, and the same frames' mouths enlarged, as PNG data."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from xdub.perception.mouth_readout import patch_boxes


def pick_frames(opening: np.ndarray, count: int) -> np.ndarray:
    """Return indices [count] in time order: in each of equal slots, the frame farthest from the median opening.

    Evenly spaced frames alone often show a half-open mouth throughout; extremes show whether the lips follow.
    ``opening`` is [F].
    """
    values = np.nan_to_num(np.abs(opening - np.nanmedian(opening)), nan=-1.0)
    edges = np.linspace(0, len(values), count + 1).round().astype(int)
    return np.array([a + int(values[a:b].argmax()) for a, b in zip(edges, edges[1:], strict=False) if b > a])


def strip(frames: np.ndarray, cell: int, gap: int = 3) -> np.ndarray:
    """Place frames [n,H,W,3] uint8 side by side, each ``cell`` px wide: RGBA uint8 [h,w,4] with transparent gaps."""
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
    """Cut the enlarged mouths [n,h,w,3] out of frames [n,H,W,3] with landmarks [n,68,2].

    Eyes and nose alone determine the position of a mouth, so the landmarks of one video serve all its versions, and
    the picture does not move with the lips. Frames with nan landmarks show their centre. ``size`` is (h, w).
    """
    height, width = size
    centres, halves, _ = patch_boxes(landmarks)
    has_face = np.isfinite(halves)
    # One scale serves all frames, because a scale per frame would zoom in and out with the noise of the landmarks.
    half = float(np.median(halves[has_face])) if has_face.any() else frames.shape[2] / 4
    out = []
    for frame, centre, is_placed in zip(frames, centres, has_face, strict=True):
        cx, cy = centre if is_placed else (frame.shape[1] / 2, frame.shape[0] / 2)
        scale = width / (2 * half)
        matrix = np.array([[scale, 0, width / 2 - scale * cx], [0, scale, height / 2 - scale * cy]])
        zoomed = cv2.warpAffine(
            frame, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        out.append(zoomed)
    return np.stack(out)


def png(image: np.ndarray) -> bytes:
    """Encode RGB or RGBA uint8 [H,W,3|4] as a PNG file."""
    code = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, code), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert ok
    return data.tobytes()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """Return the ``data:`` address of a file's bytes, which keeps a page in one file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
