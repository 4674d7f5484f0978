"""Rows of audio features of each latent, against loops over the facts of each form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xdub.data.latents import window_features
from xdub.data.samples import collate
from xdub.data.sound import surrounded, window_sound
from xdub.data.testing import FrameIndexAudio, PatchCodec, make_clip
from xdub.data.windows import cut_window
from xdub.geometry import CodecGeometry
from xdub.speech_windows import speech_windows

GEOMETRY = PatchCodec.geometry
PUBLISHED = speech_windows("published", GEOMETRY)


def slow_rows(start: int, latents: int, length: int) -> list[list[int]]:
    """Return the recording's row numbers of each latent, as the published editors choose them from ``length`` rows."""
    chosen = []
    for k in range(latents):
        if k == 0:
            expected = range(2 * start - 6, 2 * start + 2)
        else:
            frame = start + 4 * (k - 1) + 1
            expected = range(2 * frame, 2 * frame + 8)
        chosen.append([min(length - 1, max(0, row)) for row in expected])
    return chosen


@pytest.mark.parametrize("start", [0, 72, 123])
def test_published_windows_equal_a_slow_loop(start: int) -> None:
    """The recording has 200 frames, so the window of 77 frames that begins at frame 123 ends with it."""
    length, latents = 400, 20
    window = [min(length - 1, max(0, PUBLISHED.first_row(start) + row)) for row in range(PUBLISHED.count(77))]
    expected = slow_rows(start, latents, length)
    starts = PUBLISHED.starts(latents)
    for k in (0, 1, latents - 1):
        assert window[starts[k] : starts[k] + PUBLISHED.rows] == expected[k]
    assert starts[-1] + PUBLISHED.rows == PUBLISHED.count(77) == 160
    if start == 0:
        assert expected[0] == [0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("start", [0, 20, 87])
def test_rows_of_a_published_window_repeat_the_ends_of_the_recording(start: int) -> None:
    """The recording has 90 frames, and a window of 13 frames may reach beyond its end."""
    length = 180
    sound = surrounded(np.repeat(np.arange(1, length + 1, dtype=np.float32), 320))
    rows = window_features(FrameIndexAudio(), window_sound(sound, start, 13), PUBLISHED)[:, 1]
    assert rows.shape == (PUBLISHED.count(13),)
    for first, chosen in zip(PUBLISHED.starts(4), slow_rows(start, 4, length), strict=True):
        torch.testing.assert_close(rows[first : first + 8] - 1, torch.tensor(chosen, dtype=torch.float32))


def test_a_training_sample_has_the_starts_of_its_form() -> None:
    clip = make_clip(3)
    for form, starts in (("frames", [0, 2, 10]), ("published", [0, 8, 16])):
        sample = cut_window(
            clip,
            phase="generator",
            window=9,
            geometry=GEOMETRY,
            rng=np.random.default_rng(0),
            speech=form,
        )
        batch = collate([sample | {"epoch": 0, "position": 0, "bad": {}}])
        assert batch["starts"].tolist() == starts


def test_every_row_of_a_published_window_belongs_to_one_latent() -> None:
    for time in (1, 2, 4, 8):
        geometry = CodecGeometry(channels=1, time=time, space=8)
        windows = speech_windows("published", geometry)
        rows = [row for start in windows.starts(5) for row in range(start, start + windows.rows)]
        assert rows == list(range(windows.count(geometry.frames(5))))
