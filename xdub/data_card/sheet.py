"""The contact sheet of a data set: frames of evenly drawn clips with their masks over them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from xdub.data.clip import Clip
from xdub.data.manifest import Manifest
from xdub.data.shards import ShardReader
from xdub.errors import UserError
from xdub.report.contact_sheet import Column, contact_sheet

CLIPS = 8
"""Number of clips on the sheet."""
FRAMES = ("first", "closed", "open", "open, no masks")
"""Rows of the sheet: the first frame, the frames with the least and the most open mouth, the last without masks."""
TINTS = {"face_mask": (52, 87, 213), "lip_mask": (22, 121, 74), "occluder_mask": (217, 115, 13)}
"""Colour of each mask."""
STRENGTH = 0.45
"""Share of the colour inside of a mask."""


def draw_sheet(manifest: Manifest, clips: int = CLIPS) -> bytes | None:
    """Return the sheet as a JPEG file, None if no clip can be read. Clips that cannot be read are left out."""
    count = min(clips, len(manifest.ids))
    reader = ShardReader(manifest)
    columns = []
    for index in np.linspace(0, len(manifest.ids) - 1, count).round().astype(int):
        try:
            clip = reader.clip(int(index))
        except UserError:
            continue
        columns.append(Column(title=clip.clip_id[:12], cells=clip_cells(clip)))
    if not columns:
        return None
    picture = contact_sheet(columns, FRAMES, "blue: face mask, green: lips, orange: objects in front")
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=88)
    return data.getvalue()


def clip_cells(clip: Clip) -> list[np.ndarray]:
    """Return the frames of `FRAMES` uint8 [H, W, 3]."""
    opening = mouth_gap(clip.landmarks)
    closed, opened = int(np.argmin(opening)), int(np.argmax(opening))
    return [*(with_masks(clip, frame) for frame in (0, closed, opened)), clip.frames[opened]]


def mouth_gap(landmarks: np.ndarray) -> np.ndarray:
    """Return the distance [F] of the inner lips of landmarks [F, 68, 2] in px; 0 in frames without a face."""
    return np.nan_to_num(np.linalg.norm(landmarks[:, 66] - landmarks[:, 62], axis=1))


def with_masks(clip: Clip, frame: int) -> np.ndarray:
    """Return a frame uint8 [H, W, 3] with its masks in colours."""
    picture = clip.frames[frame].astype(np.float32)
    for name, colour in TINTS.items():
        mask = getattr(clip, name)[frame]
        picture[mask] = (1 - STRENGTH) * picture[mask] + STRENGTH * np.array(colour, np.float32)
    return np.rint(picture).astype(np.uint8)
