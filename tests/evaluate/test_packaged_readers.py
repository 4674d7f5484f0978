"""The packaged readout and SyncNet on freshly rendered speakers that neither network was trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xdub.config import load_recipe
from xdub.data.latents import to_video
from xdub.data.sound import surrounded
from xdub.evaluate.opening import packaged_readout, read_opening, score_readout
from xdub.model.codec import load_codec
from xdub.perception.syncnet.accuracy import AccuracyMeter
from xdub.perception.syncnet.load import load_sync


@pytest.fixture(scope="module")
def pairs():
    from xdub.render import make_clips
    from xdub.render.clips import FIRST_HELD_OUT

    return list(make_clips(0, [FIRST_HELD_OUT + 500, FIRST_HELD_OUT + 504], frames=33))


@pytest.fixture(scope="module")
def clips(pairs):
    return [clip for pair in pairs for clip in (pair.clip, pair.twin)]


@pytest.mark.slow
def test_the_readout_follows_the_truth_on_true_frames_and_through_the_codec(clips):
    assert score_readout(packaged_readout(), clips).mean >= 0.95
    assert score_readout(packaged_readout(), clips, load_codec(load_recipe("tiny").codec)).mean >= 0.90


@pytest.mark.slow
def test_crops_and_full_frames_give_the_same_reading(pairs):
    pair = pairs[0]
    in_crop = read_opening(pair.clip.frames, pair.clip.landmarks)
    in_full = read_opening(pair.full, pair.full_landmarks)
    assert abs(in_crop - in_full).max() < 0.1


@pytest.mark.slow
def test_the_syncnet_separates_aligned_from_shifted_speech(clips):
    meter = AccuracyMeter(load_sync(load_recipe("tiny").perception))
    meter.add(
        torch.cat([to_video(clip.frames) for clip in clips]),
        torch.from_numpy(np.stack([surrounded(clip.audio) for clip in clips])),
        torch.from_numpy(np.stack([clip.landmarks for clip in clips])),
    )
    result = meter.result()
    assert result.choice > 0.9 and result.best_offset > 0.5
    assert result.accuracy[0] > 0.8 and min(result.accuracy[6:]) > 0.8
