"""Figures on held-out rendered clips, where the dubbed head is compared with its twin that really speaks the new words.

Clips are measured one at a time, so that only one clip's frames are in memory; `summarise` combines their figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xdub.data.transforms import crop, crop_points, full_alpha
from xdub.evaluate.metric import combine
from xdub.evaluate.metrics import HELD_OUT, lip_box, opening_corr, outside, rest_opening
from xdub.evaluate.metrics.silence_opening import speaking_opening

Reader = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function that reads the mouth opening [F] of face crops [F,S,S,3] uint8 with landmarks [F,68,2] in crop px."""
MARGIN = 0.02
"""Distance from the face mask at which "outside" begins, as a share of the crop's side; it is past the feather of the
paste-back.
"""


@dataclass(frozen=True, kw_only=True)
class HeldOutClip:
    """A clip and its twin: same head, motion and scene, other speech. Full frames are H x W px, crops S x S px."""

    name: str
    source: np.ndarray
    """[F,H,W,3] uint8, speaks the old words."""
    truth: np.ndarray
    """[F,H,W,3] uint8, speaks the new words."""
    boxes: np.ndarray
    """[F,3] face crop, the same for both; free of lip motion."""
    size: int
    """Side S of the crops in px."""
    landmarks: np.ndarray
    """[F,68,2] of the source, px of the full frames."""
    truth_landmarks: np.ndarray
    """[F,68,2] of the truth, px of the full frames."""
    face_mask: np.ndarray
    """[F,S,S] bool: jaw-fixed lower face."""
    old_opening: np.ndarray
    """[F] true opening of the source."""
    new_opening: np.ndarray
    """[F] true opening of the truth."""

    def crops(self, frames: np.ndarray) -> np.ndarray:
        """Cut the face crops [F,S,S,3] out of full frames [F,H,W,3]."""
        return crop(frames, self.boxes, self.size)

    @property
    def crop_landmarks(self) -> np.ndarray:
        """Landmarks [F,68,2] of the source in crop px; they locate the head in all versions of the clip."""
        return crop_points(self.landmarks, self.boxes, self.size)

    def full_mask(self) -> np.ndarray:
        """Return the face mask in the full frames, [F,H,W] bool."""
        shape = self.source.shape[1:3]
        pairs = zip(self.face_mask, self.boxes, strict=True)
        return np.stack([full_alpha(mask, box, shape, feather=0.0) > 0 for mask, box in pairs])


@dataclass(frozen=True, kw_only=True)
class RawCrops:
    """Crops from the model before they are pasted back; px of the crop that the dubbing used."""

    video: np.ndarray
    """[F,S,S,3] uint8 generated crops."""
    source: np.ndarray
    """[F,S,S,3] uint8 crops that the model received."""
    face: np.ndarray
    """[F,S,S] bool: jaw-fixed lower face, where the model may change pixels."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Mouth openings [F] of one clip that do not depend on the model that dubbed it."""

    truth: np.ndarray
    """[F] read from the true frames."""
    codec: np.ndarray
    """[F] read from the true frames after the codec's round trip."""
    old: np.ndarray
    """[F] true opening of the source."""
    new: np.ndarray
    """[F] true opening of the truth."""


def read_clip(clip: HeldOutClip, read: Reader, round_trip: Callable[[np.ndarray], np.ndarray]) -> Readings:
    """Read the ceilings of a clip; ``round_trip`` passes crops [F,S,S,3] uint8 through the codec."""
    crops = clip.crops(clip.truth)
    points = clip.crop_landmarks
    return Readings(
        truth=read(crops, points),
        codec=read(round_trip(crops), points),
        old=clip.old_opening,
        new=clip.new_opening,
    )


def dub_inputs(
    clip: HeldOutClip,
    dubbed: np.ndarray,
    raw: RawCrops,
    readings: Readings,
    read: Reader,
    silent: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Collect what the metrics need of one clip dubbed by one model (`xdub.evaluate.metric.INPUTS`).

    ``dubbed`` and ``silent`` [F,H,W,3] uint8 are the frames of the finished videos, with the new speech and with
    silence. Mouth openings are read by ``read``; those of reference and source are the true ones.
    """
    height, width = clip.source.shape[1:3]
    side = float(clip.boxes[:, 2].mean())
    reading = read(clip.crops(dubbed), clip.crop_landmarks)
    return {
        "video": dubbed,
        "reference": clip.truth,
        "source": clip.source,
        "landmarks": clip.landmarks,
        "lips": lip_box([clip.landmarks, clip.truth_landmarks], height, width),
        "rest": outside(clip.full_mask(), grow=round(MARGIN * side)),
        "raw_video": raw.video,
        "raw_source": raw.source,
        "raw_rest": outside(raw.face, grow=round(MARGIN * raw.face.shape[1])),
        "opening": reading,
        "new_opening": readings.new,
        "old_opening": readings.old,
        "reading": reading,
        "reference_reading": readings.truth,
        "silent_reading": np.zeros(0) if silent is None else read(clip.crops(silent), clip.crop_landmarks),
    }


def summarise(
    readings: Sequence[Readings], dubs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Return the fields `truth`, `codec`, one entry a model, and `details` of the summary.

    ``dubs``: model -> the `measure` of every clip. `truth` and `codec` are the correlations that no dubbing can be
    expected to exceed.
    """
    new = [r.new for r in readings]
    rest = rest_opening([r.truth for r in readings], new)
    out: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for key in ("truth", "codec"):
        ceiling = opening_corr([getattr(r, key) for r in readings], new)
        out[key] = ceiling.mean
        details[key] = {"pooled": ceiling.pooled, "per_clip": ceiling.per_clip}
    details["rest_opening"] = rest
    details["speaking_opening"] = speaking_opening([r.truth for r in readings], rest)
    for model, clips in dubs.items():
        figures = combine(HELD_OUT, clips)
        out[model] = {name: figure.value for name, figure in figures.items()}
        details[model] = {key: value for figure in figures.values() for key, value in figure.details.items()}
    return out | {"details": details}
