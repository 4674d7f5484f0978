"""Read the mouth's opening from finished videos with the packaged network, and score that reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from xdub.evaluate.metrics.opening_corr import opening_corr
from xdub.model.codec import Codec
from xdub.perception.mouth_readout import MouthReadout
from xdub.precision import frozen, open_device


class KnownClip(Protocol):
    """Fields that are read from a clip with a known opening."""

    @property
    def frames(self) -> np.ndarray:
        """Pictures [F,H,W,3] uint8."""

    @property
    def landmarks(self) -> np.ndarray:
        """Points of the face [F,68,2] in px."""

    @property
    def opening(self) -> np.ndarray | None:
        """True mouth opening [F] in eye distances; None if it is unknown."""


@dataclass(frozen=True, kw_only=True)
class ReadoutScores:
    """Agreement of readings with true openings over a set of clips."""

    mean: float
    """Correlation over time, mean over clips."""
    worst: float
    """Smallest correlation of a clip."""
    mean_error: float
    """Mean absolute error of a reading, in eye distances."""
    clips: int
    """Number of clips."""


@lru_cache(maxsize=1)
def packaged_readout() -> MouthReadout:
    """Return the network that ships with the package, on this process's device; only the first call loads it."""
    return frozen(MouthReadout.shipped(), open_device())


def read_opening(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Read the mouth opening [F] float32, in eye distances, of frames [F,H,W,3] uint8.

    Only eyes and nose of the landmarks [F,68,2] (px of the frames) are used, so the landmarks of a source video serve
    all of its dubbed versions. Crops of about 80 px and full frames give the same reading. Frames with nan landmarks
    are nan.
    """
    return packaged_readout().read(frames, landmarks)


def round_trip(frames: np.ndarray, codec: Codec) -> np.ndarray:
    """Encode and decode frames [F,H,W,3] uint8.

    The last frame is repeated until the codec accepts the length; the repetitions are dropped again.
    """
    count = len(frames)
    padded = np.concatenate([frames, np.repeat(frames[-1:], -(count - 1) % codec.geometry.time, axis=0)])
    video = torch.from_numpy(padded).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        decoded = codec.decode(codec.encode(video))[0, :, :count]
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()


def score_readout(
    readout: MouthReadout, clips: Iterable[KnownClip], codec: Codec | None = None
) -> ReadoutScores:
    """Compare the readings of clips with their true openings; with a codec, the readings of its round trips.

    ValueError: a clip has no true opening.
    """
    read: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    for clip in clips:
        if clip.opening is None:
            raise ValueError("a readout is scored on clips whose opening is known")
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
