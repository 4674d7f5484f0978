"""Data sets of earlier versions may hold silent clips: none is used as speech, and each is rejected as an input."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xdub.config import Recipe
from xdub.data.ledger import Ledger
from xdub.data.shards import ShardWriter, iter_clips
from xdub.data.testing import make_clip
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.pairs.factory import build_pairs
from xdub.pairs.testing import plain_judges


def test_a_silent_clip_is_neither_dubbed_nor_used_as_speech(
    models: tuple[Path, Recipe], tmp_path: Path
) -> None:
    folder, recipe = models
    draw = np.random.default_rng(0)
    silence = np.zeros(25 * SAMPLES_PER_FRAME, np.float32)
    # A quarter of a clip with sound is not enough.
    mostly = np.where(np.arange(len(silence)) < len(silence) // 4, draw.uniform(-1, 1, len(silence)), 0)
    with ShardWriter(tmp_path / "data") as writer:
        for seed in range(4):
            writer.add(make_clip(seed, num_frames=25, speaker="one"))
        for seed, sound in enumerate(2 * [silence, mostly.astype(np.float32)], start=4):
            writer.add(make_clip(seed, num_frames=25, speaker="one", audio=sound))
    report = build_pairs(
        recipe, folder, tmp_path / "data", tmp_path / "pairs", judges=plain_judges(), local=True
    )
    clips = list(iter_clips(tmp_path / "data"))
    silent, spoken = {clip.clip_id for clip in clips[4:]}, {clip.clip_id for clip in clips[:4]}
    rows = {row.input: row for row in Ledger(tmp_path / "pairs").rows()}
    assert report.counts["failed"] == 0 and report.inputs == len(rows) == 8
    for clip_id in silent:
        row = rows[clip_id]
        assert (row.status, row.check, row.value, row.threshold) == ("rejected", "sound", 0.0, 1e-4)
    sources = {rows[clip_id].message.rpartition("from=")[2] for clip_id in spoken}
    assert sources <= spoken
