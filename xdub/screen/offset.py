"""Offset of sound and lips by a SyncNet (paper B.6), in frames, and the confidence of the measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from xdub.perception.syncnet.base import MAX_OFFSET, SyncExpert, audible
from xdub.screen.check import Footage

NEAR = 2
"""Offsets this close to the best one belong to its peak."""
LEAST_WINDOWS = 30
"""Fewest windows with sound for which an offset is judged: with 20, foreign speech may look like a match."""


@dataclass(frozen=True, kw_only=True)
class OffsetReading:
    """The best offset of a clip."""

    offset: int
    """Frames by which the sound is late: the lips of frame n belong to the sound of frame n + offset."""
    confidence: float
    """Height of the peak above all other offsets, in their standard deviations; 0 if nothing can be measured."""
    cosine: float
    """Mean cosine at the best offset."""


NOTHING = OffsetReading(offset=0, confidence=0.0, cosine=0.0)
"""Reading of a clip without a face or without sound."""


@torch.no_grad()
def read_offset(network: SyncExpert, footage: Footage) -> OffsetReading:
    """Measure the offset of a clip within `MAX_OFFSET` frames.

    The mean cosine of all windows has a peak where sound and lips belong together. Without a match, the largest of 31
    values is 1.5 to 3.5 deviations above the others; see docs/footage.md.
    """
    if footage.length < network.frames or not len(footage.face_frames):
        return NOTHING
    frames = (
        torch.from_numpy(np.ascontiguousarray(footage.frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    )
    sound = torch.from_numpy(np.ascontiguousarray(footage.sound))[None]
    device = next(network.parameters()).device
    frames, sound = frames.to(device), sound.to(device)
    picture = network.embed_video(frames, torch.from_numpy(footage.landmarks)[None].to(device))
    heard = network.embed_sound(sound, MAX_OFFSET)
    # [W, 31]
    cosines = torch.einsum("bwe,bweo->bwo", picture, heard.unfold(1, 2 * MAX_OFFSET + 1, 1))[0]
    present = audible(sound, network.frames, MAX_OFFSET).unfold(1, 2 * MAX_OFFSET + 1, 1)[0]
    counts = present.sum(0)
    curve = (cosines * present).sum(0) / counts.clamp_min(1)
    return reading_of(curve.double().cpu().numpy(), (counts >= LEAST_WINDOWS).cpu().numpy())


def reading_of(curve: np.ndarray, valid: np.ndarray) -> OffsetReading:
    """Return the peak of mean cosines [31] by offset; ``valid`` [31] marks the offsets that have enough sound."""
    if not valid.any():
        return NOTHING
    best = int(np.where(valid, curve, -np.inf).argmax())
    others = curve[valid & (np.abs(np.arange(len(curve)) - best) > NEAR)]
    if len(others) < MAX_OFFSET // 2:
        return NOTHING
    confidence = (curve[best] - others.mean()) / max(float(others.std()), 1e-3)
    return OffsetReading(offset=best - MAX_OFFSET, confidence=float(confidence), cosine=float(curve[best]))
