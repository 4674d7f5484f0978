"""`python -m perf speech_features`: fair clips and recipes, and figures that are means of what they name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from perf.sampler import speech_clips, speech_features
from xdub.data.sound import window_sound
from xdub.data.testing import make_clip
from xdub.dub.testing import SMALL
from xdub.model.build import build_backbone


@pytest.mark.parametrize("start", [10, 35, 60])
def test_a_cut_clip_hears_what_its_window_hears_in_the_recording(start: int) -> None:
    recording = make_clip(3, num_frames=97, opening=np.linspace(0, 1, 97, dtype=np.float32))
    clip = speech_clips.cut(recording, start)
    window = window_sound(recording.sound, start, speech_clips.WINDOW)
    np.testing.assert_array_equal(window_sound(clip.sound, 0, speech_clips.WINDOW), window)
    np.testing.assert_array_equal(clip.frames, recording.frames[start : start + 25])
    assert clip.opening is not None and clip.opening[0] == pytest.approx(start / 96)


def test_the_recipes_differ_in_the_features_only() -> None:
    log_mel, whisper = (
        speech_features.recipe_of(name, 40, 4, seed=1).to_dict() for name in speech_features.FEATURES
    )
    assert log_mel.pop("audio")["kind"] == "logmel" and whisper.pop("audio")["path"] == "tiny.en"
    assert log_mel == whisper


def test_rows_of_a_sound_are_computed_once() -> None:
    calls = []

    def encode(encoder: object, wav: np.ndarray) -> Tensor:
        calls.append(len(wav))
        return torch.from_numpy(2 * wav)

    kept = speech_features.kept_rows(encode)
    sounds = [np.ones(3, np.float32), np.ones(4, np.float32), np.ones(3, np.float32)]
    assert [kept(None, wav).tolist() for wav in sounds] == [[2.0] * 3, [2.0] * 4, [2.0] * 3]
    assert calls == [3, 4]


def test_the_difference_is_paired_over_heads() -> None:
    def row(features: str, seed: int, step: int, by_head: list[float]) -> dict:
        return {
            "features": features, "seed": seed, "step": step,
            "opening_corr": float(np.nanmean(by_head)), "by_head": by_head,
        }  # fmt: skip

    rows = [
        row(name, seed, step, [0.2 + gain + 0.1 * seed, 0.6 + gain + 0.1 * seed, math.nan])
        for name, gain in zip(speech_features.FEATURES, (0.0, 0.05), strict=True)
        for seed in (0, 1)
        for step in (5, 10)
    ]
    result = speech_features.summarise(rows)
    assert result["table"]["log-mel"]["10"] == pytest.approx([0.45, 0.4, 0.5])
    assert result["whisper_minus_log_mel"] == pytest.approx([0.05, 0.0], abs=1e-4)


def test_a_dub_of_every_head_is_measured() -> None:
    recipe = speech_features.recipe_of("log-mel", 2, 2, seed=0, settings=[*SMALL, "codec.channels=48"])
    opening = np.linspace(0, 1, 29, dtype=np.float32)
    heads = [
        speech_clips.Head(*(make_clip(seed, num_frames=29, opening=opening) for seed in pair))
        for pair in ((1, 2), (3, 4))
    ]
    network = build_backbone(recipe, "generator", seed=0).eval()
    corrs = speech_features.opening_corrs(network, recipe, heads)
    assert len(corrs) == 2 and all(abs(corr) <= 1 for corr in corrs)
