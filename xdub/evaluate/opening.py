"""The demo's yardstick: mouth opening read from finished videos, and how far that reading can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from xdub.evaluate.metrics.opening_corr import opening_corr
from xdub.perception.mouth_readout import MouthReadout


class KnownClip(Protocol):
    """What is read of a clip whose true opening is known."""

    frames: np.ndarray
    """[F,H,W,3] uint8"""
    landmarks: np.ndarray
    """[F,68,2] px"""
    opening: np.ndarray | None
    """[F]"""


@dataclass(frozen=True, kw_only=True)
class ReadoutScores:
    """Correlation over time of reading and truth: mean over clips, smallest of them, and the readings' mean
    error.
    """

    mean: float
    worst: float
    mean_error: float
    clips: int


@lru_cache(maxsize=1)
def packaged_readout() -> MouthReadout:
    """The network in the package."""
    return MouthReadout.shipped()


def read_opening(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Mouth opening [F] float32 in eye distances, of frames [F,H,W,3] uint8 with landmarks [F,68,2] in their
    px.

    Of the landmarks only eyes and nose are used: those of the source video do for all of its dubbed
    versions. Crops of about 80 px and full frames do alike. nan where the landmarks are.
    """
    return packaged_readout().read(frames, landmarks)


def round_trip(frames: np.ndarray, codec: Any) -> np.ndarray:
    """Frames [F,H,W,3] uint8 after the codec; the last frame is repeated up to 4 k + 1 and dropped again."""
    count = len(frames)
    padded = np.concatenate([frames, np.repeat(frames[-1:], -(count - 1) % 4, axis=0)])
    video = torch.from_numpy(padded).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        decoded = codec.decode(codec.encode(video))[0, :, :count]
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


def score_readout(readout: MouthReadout, clips: Iterable[KnownClip], codec: Any = None) -> ReadoutScores:
    """How well the readings of clips follow their true openings; with a codec, of their round trips."""
    read, truth = [], []
    for clip in clips:
        frames = clip.frames if codec is None else round_trip(clip.frames, codec)
        read.append(readout.read(frames, clip.landmarks))
        truth.append(clip.opening)
    correlation = opening_corr(read, truth)
    return ReadoutScores(
        mean=correlation.mean,
        worst=float(np.nanmin(correlation.per_clip)),
        mean_error=float(np.nanmean(np.abs(np.concatenate(read) - np.concatenate(truth)))),
        clips=len(read),
    )
