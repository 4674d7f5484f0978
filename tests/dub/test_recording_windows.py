"""Windows of a published editor are cut from the features of the whole speech, in dubs and in pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from xdub.data.latents import window_features
from xdub.data.recording import Recording
from xdub.data.sound import SILENCE, surrounded, window_sound
from xdub.data.testing import PatchCodec
from xdub.dub.segments import plan_segments
from xdub.dub.testing import small_recipe
from xdub.dub.tracks import Joiner
from xdub.dub.window_sampler import WindowSampler
from xdub.model.testing import random_backbone, random_codec
from xdub.speech_windows import speech_windows

WINDOWS = speech_windows("published", PatchCodec.geometry)
FRAMES = 200
"""Frames of the recording."""


class RowNumbers:
    """An encoder that reads recordings row by row; row n is (n, number of samples, whether the sound ended)."""

    dim, machine_independent = 3, True

    def __init__(self) -> None:
        self.opened, self.most = 0, 0

    def encode(self, wav: np.ndarray) -> Tensor:
        raise AssertionError("a recording is opened, not encoded at once")

    def open(self, wav: np.ndarray, *, ended: bool) -> RowNumbers:
        self.opened += 1
        self.samples, self.ended, self.count = len(wav), ended, round(len(wav) / 320)
        return self

    def read(self, start: int, stop: int) -> Tensor:
        self.most = max(self.most, stop - start)
        rows = torch.arange(start, stop).float()
        return torch.stack([rows, torch.full_like(rows, self.samples), torch.full_like(rows, self.ended)], 1)


def speech(frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 640 * frames).astype(np.float32)


def slow_rows(start: int, frames: int, length: int) -> list[int]:
    rows = list(range(2 * start - 6, 2 * start + 2))
    for k in range(1, (frames - 1) // 4 + 1):
        rows += range(2 * (start + 4 * (k - 1) + 1), 2 * (start + 4 * (k - 1) + 1) + 8)
    return [min(length - 1, max(0, row)) for row in rows]


@pytest.mark.parametrize("start", [-5, 0, 72, 123, 190, 300])
def test_a_window_has_the_rows_of_the_whole_recording(start: int) -> None:
    encoder = RowNumbers()
    rows = Recording(encoder, surrounded(speech()), WINDOWS).window(start, 77)
    assert rows[:, 0].tolist() == slow_rows(start, 77, 2 * FRAMES)
    assert set(rows[:, 1].tolist()) == {640 * FRAMES} and bool(rows[:, 2].all())
    assert encoder.most <= WINDOWS.count(77)


def test_sound_around_a_clip_belongs_to_its_recording() -> None:
    """The clip begins 500 samples after its source and its sound goes on behind it."""
    sound = surrounded(speech(9), before=speech(9)[:500], after=speech(25))
    rows = Recording(RowNumbers(), sound, WINDOWS).window(0, 9)
    # Two rows precede the clip, the first of them incomplete.
    assert rows[:, 0].tolist() == [max(0, row + 2) for row in range(-6, 18)]
    assert not rows[:, 2].any()


def test_silence_is_sound_and_a_window_without_sound_is_silent() -> None:
    rows = Recording(RowNumbers(), surrounded(np.zeros(6400, np.float32)), WINDOWS).window(0, 9)
    assert rows[0, 1] == 6400 and SILENCE > 0
    encoder = RowNumbers()
    assert window_features(encoder, np.zeros(640 * 59, np.float32), WINDOWS).shape == (24, 3)
    assert encoder.samples == 640 * 59


def test_dubs_and_pairs_open_a_speech_once_and_training_opens_every_window() -> None:
    recipe, encoder = small_recipe(), RowNumbers()
    codec = random_codec(recipe.codec.channels)
    network = random_backbone(recipe, "editor", codec)
    assert WindowSampler(network, codec, encoder, num_steps=1).recording(surrounded(speech())) is None
    network.speech = "published"
    sampler, sound = WindowSampler(network, codec, encoder, num_steps=1), surrounded(speech())
    recording = sampler.recording(sound)
    joiner = Joiner(100, sound, (0,), window=25, motion=5, first_frame=40, recording=recording)
    assert joiner.segments == plan_segments(100, 25, 5)
    for segment in joiner.segments:
        window = joiner.window(segment, np.zeros((25, 8, 8, 3), np.uint8))
        assert window.audio is not None
        assert window.audio[:, 0].tolist() == slow_rows(40 + segment.start, 25, 2 * FRAMES)
    assert encoder.opened == 1
    trained = window_features(encoder, window_sound(sound, 40, 25), WINDOWS)
    # The window's own sound begins a second, or 50 rows, before it.
    assert trained[:, 0].tolist() == list(range(44, 100)) and encoder.opened == 2
