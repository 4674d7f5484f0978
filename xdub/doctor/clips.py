"""Drawn faces that speak: clips and pairs of any size, computed in memory without a renderer or a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xdub.config import Recipe
from xdub.data.clip import Clip, clip_id_of
from xdub.data.shards import ShardWriter
from xdub.data.transforms import DROP, SIDE
from xdub.geometry import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from xdub.perception.face_mesh import POSE_POINTS, hull_masks, lip_masks, lower_face_masks

MOUTH_Y, MOUTH_WIDTH = 1.15, 0.4
"""Distance of the mouth below the eyes, and half its width, in eye distances."""


def drawn_clip(size: int, frames: int, number: int, *, pair: bool = False) -> Clip:
    """Draw clip ``number`` of one speaker; as a pair, V' has another opening of the mouth."""
    draw = np.random.default_rng(number)
    seconds = np.arange(frames) / FPS
    opening = 0.15 + 0.15 * np.sin(2 * np.pi * (3 + number) * seconds)
    landmarks = landmarks_of(opening, size)
    picture = _picture(landmarks, size, number)
    source = f"drawn:{number}"
    reference = _picture(landmarks_of(0.3 - opening, size), size, number) if pair else None
    return Clip(
        clip_id=clip_id_of(source, picture, reference),
        source=source,
        speaker="drawn",
        frames=picture,
        audio=speech(frames, draw),
        landmarks=landmarks,
        face_mask=lower_face_masks(landmarks, size, size),
        lip_mask=lip_masks(landmarks, size, size),
        occluder_mask=np.zeros((frames, size, size), bool),
        reference=reference,
        scores={"identity": 1.0} if pair else {},
    )


def write_clips(folder: Path, recipe: Recipe, frames: int, *, pairs: bool) -> Path:
    """Write a data set of two drawn clips, or two pairs; return its folder."""
    with ShardWriter(folder, kind="pairs" if pairs else "clips") as writer:
        for number in range(2):
            writer.add(drawn_clip(recipe.video.size, frames, number, pair=pairs))
    return folder


def landmarks_of(opening: np.ndarray, size: int) -> np.ndarray:
    """Return landmarks [F, 68, 2] float32 of a face crop for openings [F] of the mouth in eye distances."""
    unit = size / SIDE
    points = np.zeros((len(opening), 68, 2))
    for index, (x, y, _) in POSE_POINTS.items():
        points[:, index] = x, y
    jaw = np.linspace(-np.pi / 2, np.pi / 2, 17)
    points[:, :17] = np.stack([1.1 * np.sin(jaw), 0.2 + 1.6 * np.cos(jaw)], -1)
    points[:, [18, 20, 23, 25]] = (points[:, [17, 19, 22, 24]] + points[:, [19, 21, 24, 26]]) / 2
    for index, x in zip((31, 32, 34, 35), (-0.2, -0.1, 0.1, 0.2), strict=True):
        points[:, index] = x, 0.74
    for left, right, lids in ((36, 39, (37, 38, 41, 40)), (42, 45, (43, 44, 47, 46))):
        for number, lid in enumerate(lids):
            share = (1 + number % 2) / 3
            points[:, lid] = points[:, left] * (1 - share) + points[:, right] * share
            points[:, lid, 1] += -0.06 if number < 2 else 0.06
    _draw_mouth(points, opening)
    # The crop's middle lies `DROP` below the eyes.
    return (points * unit + (size / 2, size / 2 - DROP * unit)).astype(np.float32)


def _draw_mouth(points: np.ndarray, opening: np.ndarray) -> None:
    """Set the 20 points of the mouth: two ellipses around the line of the lips."""
    for first, count, width, lip in ((48, 12, MOUTH_WIDTH, 0.08), (60, 8, 0.75 * MOUTH_WIDTH, 0.0)):
        angle = np.pi + 2 * np.pi * np.arange(count) / count
        height = opening[:, None] / 2 + lip
        points[:, first : first + count, 0] = width * np.cos(angle)
        points[:, first : first + count, 1] = MOUTH_Y + opening[:, None] / 2 + height * np.sin(angle)


def _picture(landmarks: np.ndarray, size: int, number: int) -> np.ndarray:
    """Draw frames uint8 [F, S, S, 3]: a moving background, a face, eyes and an open mouth."""
    frames = len(landmarks)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(size), np.arange(size), indexing="ij")
    waves = [
        np.sin(8 * np.pi * x / size + p + t / 5) * np.cos(6 * np.pi * y / size + p)
        for p in (0, 1, 2 + number)
    ]
    picture = 120 + 50 * np.stack(waves, -1)
    parts = (
        (slice(0, 27), (200, 150, 125), 0.8),
        (slice(36, 42), (40, 40, 60), 1.0),
        (slice(42, 48), (40, 40, 60), 1.0),
        (slice(48, 60), (170, 70, 80), 1.0),
        (slice(60, 68), (30, 10, 15), 1.0),
    )
    for points, colour, weight in parts:
        inside = hull_masks(landmarks[:, points], size, size)
        picture[inside] = (1 - weight) * picture[inside] + weight * np.array(colour)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def speech(frames: int, draw: np.random.Generator) -> np.ndarray:
    """Return sound float32 [640 F]: a voice of ten harmonics in syllables, with a little noise."""
    time = np.arange(frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    pitch = 120 + 20 * draw.uniform()
    voice = sum(np.sin(2 * np.pi * pitch * n * time + draw.uniform(0, 6)) / n for n in range(1, 11))
    syllables = np.clip(np.sin(2 * np.pi * 4 * time), 0.05, None)
    return (0.1 * syllables * (voice + 0.1 * draw.normal(size=len(time)))).astype(np.float32)
