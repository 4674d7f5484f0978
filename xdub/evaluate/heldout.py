"""Figures on held-out rendered clips: what was dubbed against the twin that really speaks the new words.

Clip by clip, so that only one clip's frames are in memory; the figures of all clips are then put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xdub.data.transforms import crop, crop_points, full_alpha
from xdub.evaluate.metrics import (
    leak_corr,
    lip_box,
    mean_psnr,
    opening_corr,
    outside,
    psnr,
    rest_opening,
    silence_opening,
)

Reader = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Mouth opening [F] of face crops [F,S,S,3] uint8 with landmarks [F,68,2] in crop px."""
MARGIN = 0.02
"""How far outside of the face mask "outside" begins, share of the crop's side: past the feather of the
paste-back.
"""


@dataclass(frozen=True, kw_only=True)
class HeldOutClip:
    """A clip and its twin: same head, motion and scene, other speech. Full frames of H x W, crops of S x S
    px.
    """

    name: str
    source: np.ndarray
    """[F,H,W,3] uint8, speaks the old words."""
    truth: np.ndarray
    """[F,H,W,3] uint8, speaks the new words."""
    boxes: np.ndarray
    """[F,3] face crop, the same for both; free of lip motion."""
    size: int
    """S"""
    landmarks: np.ndarray
    """[F,68,2] of the source, px of the full frames."""
    truth_landmarks: np.ndarray
    face_mask: np.ndarray
    """[F,S,S] bool: jaw-fixed lower face."""
    old_opening: np.ndarray
    """[F] true opening of the source."""
    new_opening: np.ndarray

    def crops(self, frames: np.ndarray) -> np.ndarray:
        return crop(frames, self.boxes, self.size)

    @property
    def crop_landmarks(self) -> np.ndarray:
        """Of the source, in crop px: where the head is, for all readings alike."""
        return crop_points(self.landmarks, self.boxes, self.size)

    def full_mask(self) -> np.ndarray:
        """The face mask in the full frames [F,H,W] bool."""
        shape = self.source.shape[1:3]
        pairs = zip(self.face_mask, self.boxes, strict=True)
        return np.stack([full_alpha(mask, box, shape, feather=0.0) > 0 for mask, box in pairs])


@dataclass(frozen=True, kw_only=True)
class RawCrops:
    """The model's own pictures, before they are pasted back; px of the crop that the dubbing used."""

    made: np.ndarray
    """[F,S,S,3] uint8"""
    source: np.ndarray
    """[F,S,S,3] uint8: what the model was shown."""
    face: np.ndarray
    """[F,S,S] bool: jaw-fixed lower face, where it may change things."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What is read of one clip, whatever dubbed it."""

    truth: np.ndarray
    """[F] reading of the true frames."""
    codec: np.ndarray
    """[F] of the true frames after the codec's round trip."""
    old: np.ndarray
    new: np.ndarray
    """[F] true openings."""


@dataclass(frozen=True, kw_only=True)
class DubFigures:
    """One clip dubbed by one model."""

    read: np.ndarray
    """[F]"""
    lip_psnr: np.ndarray
    """[F] dB against the twin, in the box around the lips of either."""
    outside_psnr: np.ndarray
    """[F] dB against the source."""
    raw_outside_psnr: np.ndarray
    """[F] the same of the model's own crops, before paste-back."""


def read_clip(clip: HeldOutClip, read: Reader, round_trip: Callable[[np.ndarray], np.ndarray]) -> Readings:
    """The ceilings of a clip; ``round_trip`` takes and gives crops [F,S,S,3] uint8."""
    crops = clip.crops(clip.truth)
    points = clip.crop_landmarks
    return Readings(
        truth=read(crops, points),
        codec=read(round_trip(crops), points),
        old=clip.old_opening,
        new=clip.new_opening,
    )


def measure_dub(clip: HeldOutClip, dubbed: np.ndarray, raw: RawCrops, read: Reader) -> DubFigures:
    """``dubbed`` [F,H,W,3] uint8: the frames of the finished video."""
    height, width = clip.source.shape[1:3]
    lips = lip_box([clip.landmarks, clip.truth_landmarks], height, width)
    side = float(clip.boxes[:, 2].mean())
    rest = outside(clip.full_mask(), grow=round(MARGIN * side))
    raw_rest = outside(raw.face, grow=round(MARGIN * raw.face.shape[1]))
    return DubFigures(
        read=read(clip.crops(dubbed), clip.crop_landmarks),
        lip_psnr=psnr(dubbed, clip.truth, lips),
        outside_psnr=psnr(dubbed, clip.source, rest),
        raw_outside_psnr=psnr(raw.made, raw.source, raw_rest),
    )


def summarise(
    readings: Sequence[Readings],
    dubs: Mapping[str, Sequence[DubFigures]],
    silent: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, Any]:
    """The fields `truth`, `codec` and one entry a model of the summary, with finer figures under `details`.

    ``dubs``: model -> one entry a clip. ``silent``: model -> readings [F] of clips dubbed with silence.
    """
    new, old = [r.new for r in readings], [r.old for r in readings]
    truth, codec = (opening_corr([getattr(r, key) for r in readings], new) for key in ("truth", "codec"))
    rest = rest_opening([r.truth for r in readings], new)
    speaking = float(np.mean([np.nanpercentile(r.truth, 95) for r in readings])) - rest
    out: dict[str, Any] = {"truth": truth.mean, "codec": codec.mean}
    details: dict[str, Any] = {
        "truth": {"pooled": truth.pooled, "per_clip": truth.per_clip},
        "codec": {"pooled": codec.pooled, "per_clip": codec.per_clip},
        "rest_opening": rest,
        "speaking_opening": speaking,
    }
    for model, figures in dubs.items():
        read = [f.read for f in figures]
        follows, leak = opening_corr(read, new), leak_corr(read, old, new)
        silence = silence_opening(silent[model], rest)
        out[model] = {
            "opening_corr": follows.mean,
            "leak_corr": leak.unique,
            "lip_psnr": mean_psnr([f.lip_psnr for f in figures]),
            "outside_psnr": mean_psnr([f.outside_psnr for f in figures]),
            "raw_outside_psnr": mean_psnr([f.raw_outside_psnr for f in figures]),
            "silence_opening": silence,
        }
        details[model] = {
            "opening_corr": {"pooled": follows.pooled, "per_clip": follows.per_clip},
            "leak_corr": {
                "raw": leak.raw, "partial": leak.partial, "chance": leak.chance, "per_clip": leak.per_clip,
            },
            "silence_share": silence / speaking if speaking > 0 else float("nan"),
        }  # fmt: skip
    return out | {"details": details}
