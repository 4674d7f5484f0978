"""Figures of held-out clips, on drawn faces whose mouth opening is exact."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.evaluate.heldout import HeldOutClip, RawCrops, dub_inputs, read_clip, summarise
from xdub.evaluate.metric import measure
from xdub.evaluate.metrics import HELD_OUT
from xdub.evaluate.testing import drawn_faces, drawn_landmarks, opening_curve

SIZE = 128


def clip(seed: int) -> HeldOutClip:
    old, new = opening_curve(seed), opening_curve(seed + 100)
    points = drawn_landmarks(len(old), SIZE)
    mask = np.zeros((len(old), 64, 64), bool)
    mask[:, 36:62, 10:54] = True
    return HeldOutClip(
        name=f"clip {seed}",
        source=drawn_faces(old, SIZE),
        truth=drawn_faces(new, SIZE),
        boxes=np.tile(np.float32([SIZE / 2, SIZE / 2, SIZE]), (len(old), 1)),
        size=64,
        landmarks=points,
        truth_landmarks=points,
        face_mask=mask,
        old_opening=old.astype(np.float32),
        new_opening=new.astype(np.float32),
    )


def read(crops: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return the share of mouth-coloured pixels: a readout that is exact on drawn faces."""
    red = (crops[..., 0].astype(int) > 120) & (crops[..., 1] < 80)
    return red.mean(axis=(1, 2))


def raw_crops(c: HeldOutClip, frames: np.ndarray) -> RawCrops:
    return RawCrops(video=c.crops(frames), source=c.crops(c.source), face=c.face_mask)


@pytest.fixture(scope="module")
def clips() -> list[HeldOutClip]:
    return [clip(seed) for seed in range(3)]


def figures(clips: list[HeldOutClip], dub) -> dict:
    readings = [read_clip(c, read, lambda crops: crops) for c in clips]
    closed = [drawn_faces(np.zeros(len(c.source)), SIZE) for c in clips]
    inputs = [
        dub_inputs(c, dub(c), raw_crops(c, dub(c)), reading, read, silent)
        for c, reading, silent in zip(clips, readings, closed, strict=True)
    ]
    return summarise(readings, {"editor": [measure(HELD_OUT, clip_inputs) for clip_inputs in inputs]})


def test_the_truth_itself_reaches_every_ceiling(clips: list[HeldOutClip]) -> None:
    out = figures(clips, lambda c: c.truth)
    assert out["truth"] > 0.97 and out["codec"] == out["truth"]
    assert out["editor"]["opening_corr"] == pytest.approx(out["truth"])
    assert abs(out["editor"]["leak_corr"]) < 0.1 and out["editor"]["lip_psnr"] == 100.0
    assert out["editor"]["outside_psnr"] > 60  # a drawn twin differs from its source in the mouth alone


def test_a_copy_of_the_source_leaks_and_keeps_everything_else(clips: list[HeldOutClip]) -> None:
    out = figures(clips, lambda c: c.source)
    assert out["editor"]["opening_corr"] < 0.6 and out["editor"]["leak_corr"] > 0.7
    assert out["editor"]["lip_psnr"] < 30 and out["editor"]["outside_psnr"] == 100.0
    assert out["details"]["editor"]["leak_corr"]["raw"] > 0.95


def test_damage_outside_the_mouth_lowers_only_the_metrics_outside(clips: list[HeldOutClip]) -> None:
    def damaged(c: HeldOutClip) -> np.ndarray:
        out = c.truth.copy()
        out[:, :20] = 255 - out[:, :20]
        return out

    out = figures(clips, damaged)["editor"]
    assert out["outside_psnr"] < 20 and out["raw_outside_psnr"] < 20 and out["lip_psnr"] == 100.0


def test_silence_is_reported_against_a_closed_mouth(clips: list[HeldOutClip]) -> None:
    out = figures(clips, lambda c: c.truth)
    assert abs(out["editor"]["silence_opening"]) < 0.2 * out["details"]["speaking_opening"]
