"""Drawn faces whose mouths follow a curve, for tests."""

from __future__ import annotations

import cv2
import numpy as np

from xdub.seeding import rng


def opening_curve(seed: int, frames: int = 60) -> np.ndarray:
    """Return a smooth random mouth opening [F], in shares of the picture's side."""
    kernel = np.hanning(9) / np.hanning(9).sum()
    curve = np.convolve(rng("opening", seed).random(frames + 8), kernel, mode="valid")
    return np.clip((curve - 0.35) * 0.5, 0, None)


def drawn_faces(opening: np.ndarray, size: int = 128) -> np.ndarray:
    """Draw one face per value of ``opening`` [F]: [F,size,size,3] uint8."""
    frames = np.zeros((len(opening), size, size, 3), np.uint8)
    c = size // 2
    skin, eye, lips = (214, 168, 142), (40, 30, 30), (150, 50, 60)
    for i, value in enumerate(opening):
        frames[i] = (70, 96, 120)
        head = (int(size * 0.33), int(size * 0.42))
        cv2.ellipse(frames[i], (c, c), head, 0, 0, 360, skin, -1, cv2.LINE_AA)
        for x in (-1, 1):
            centre = (c + x * size // 7, int(c * 0.8))
            cv2.circle(frames[i], centre, size // 28, eye, -1, cv2.LINE_AA)
        mouth = (size // 9, max(2, int(value * size)))
        cv2.ellipse(frames[i], (c, int(c * 1.42)), mouth, 0, 0, 360, lips, -1, cv2.LINE_AA)
    return frames


def drawn_landmarks(frames: int, size: int = 128) -> np.ndarray:
    """Return [frames,68,2] px: eyes, nose and mouth of the drawn face, the same in every frame."""
    points = np.full((frames, 68, 2), size / 2, np.float32)
    angles = np.linspace(np.pi, 3 * np.pi, 20, endpoint=False)
    points[:, 48:68, 0] = size / 2 + np.cos(angles) * size / 9
    points[:, 48:68, 1] = size * 0.71 + np.sin(angles) * size / 20
    points[:, 54] = [size / 2 + size / 9, size * 0.71]
    points[:, 36:42] = [size / 2 - size / 7, size * 0.4]
    points[:, 42:48] = [size / 2 + size / 7, size * 0.4]
    points[:, 33] = [size / 2, size * 0.6]
    return points
