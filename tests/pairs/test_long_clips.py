"""The long-clip mode of Table 6: 77 frames in one pass, with the code of short segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from xdub.config import load_recipe, recipe_from_dict
from xdub.data.ledger import Ledger
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardWriter, iter_clips
from xdub.data.testing import make_clip
from xdub.dub.testing import small_recipe
from xdub.dub.tracks import Track, generate
from xdub.dub.window import Window
from xdub.dub.window_sampler import WindowSampler
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.model.audio_encoder import LogMelEncoder
from xdub.model.bundle import bundle_path
from xdub.model.testing import random_backbone, random_codec
from xdub.pairs.factory import build_pairs
from xdub.pairs.testing import plain_judges
from xdub.train.run import train_phase

RECIPE = small_recipe("pairs.segment_frames=77", "video.clip_frames=77")


class _Spy:
    """A sampler that records the lengths of its windows and of their motion frames."""

    def __init__(self) -> None:
        codec = random_codec(RECIPE.codec.channels)
        network, encoder = random_backbone(RECIPE, "generator", codec), LogMelEncoder(RECIPE.audio.dim)
        self.sampler = WindowSampler(network, codec, encoder, num_steps=1)
        self.recording = self.sampler.recording
        self.calls: list[tuple[int, int]] = []

    def __call__(self, windows: Sequence[Window]) -> list[np.ndarray]:
        self.calls += [(len(w.frames), 0 if w.motion is None else len(w.motion)) for w in windows]
        return self.sampler(windows)


@pytest.mark.parametrize(
    ("num_frames", "passes"),
    [(77, [(77, 0)]), (45, [(77, 0)]), (100, [(77, 0), (77, 5)])],
    ids=["one pass", "a shorter clip is mirrored to one pass", "a longer clip needs two passes"],
)
def test_a_clip_of_77_frames_is_one_pass_and_keeps_its_length(num_frames: int, passes) -> None:
    clip, spy = make_clip(0, num_frames=num_frames), _Spy()
    track = Track(frames=clip.frames, sound=clip.sound, noise=(0,), hidden=clip.visible_mask)
    pairs = RECIPE.pairs
    (frames,) = generate([track], spy, window=pairs.segment_frames, motion=pairs.motion_frames, batch=1)  # ty: ignore
    assert frames.shape == clip.frames.shape and frames.dtype == np.float32 and np.isfinite(frames).all()
    assert spy.calls == passes


def test_a_setting_builds_long_pairs_in_one_pass(models, tmp_path) -> None:
    folder, recipe = models
    with ShardWriter(tmp_path / "data") as writer:
        for seed in range(2):
            writer.add(
                make_clip(seed, num_frames=77, speaker="anna", occluder_mask=np.zeros((77, 32, 32), bool))
            )
    seams = {}
    for frames in (25, 77):
        out = tmp_path / str(frames)
        changed = replace(recipe, pairs=replace(recipe.pairs, segment_frames=frames))
        report = build_pairs(
            recipe_from_dict(changed.to_dict()),
            folder,
            tmp_path / "data",
            out,
            local=True,
            judges=plain_judges(),
        )
        assert (
            report.counts["kept"] + report.counts["rejected"] == report.inputs == 2 and report.counts["kept"]
        )
        assert all(pair.reference.shape == (77, 32, 32, 3) for pair in iter_clips(out))
        seams[frames] = ["seam" in pair.scores for pair in iter_clips(out)]
    assert all(seams[25]) and not any(seams[77])


LONG = ["video.clip_frames=77", "phases.generator.window=77", "pairs.segment_frames=77"]
SHORT_RUN = ["train.steps=2", "train.global_batch=2", "train.micro_batch=1", "train.num_threads=1"]


@pytest.mark.slow
def test_the_shipped_generator_trains_on_the_long_window_and_builds_pairs_in_one_pass(tmp_path) -> None:
    """Settings of the tiny recipe suffice; training skips clips shorter than the window."""
    recipe = load_recipe("tiny", [*LONG, *SHORT_RUN])
    lengths = (77, 25, 77, 73)
    with ShardWriter(tmp_path / "data") as writer:
        for seed, frames in enumerate(lengths):
            writer.add(make_clip(seed, num_frames=frames, size=64))
    ids = read_manifest(tmp_path / "data").ids
    run, start = tmp_path / "run", bundle_path("tiny") / "generator.safetensors"
    result = train_phase("generator", recipe, tmp_path / "data", run, init_from=start, local=True)
    assert (result.status, result.step) == ("finished", 2)
    steps = list(read_lines(PhaseFolder(run, "generator").steps))
    assert all(np.isfinite(float.fromhex(step["loss"])) for step in steps)
    trained_on = {sample for step in steps for sample in step["sample_ids"]}
    assert trained_on == {clip_id for clip_id, frames in zip(ids, lengths, strict=True) if frames == 77}
    report = build_pairs(recipe, run, tmp_path / "data", tmp_path / "out", local=True, judges=plain_judges())
    assert report.inputs == 4 and report.counts["failed"] == 0
    assert not any("seam" in row.scores for row in Ledger(tmp_path / "out").rows())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pairs.segment_frames=5", "pairs.motion_frames=5 leaves nothing of pairs.segment_frames=5"),
        ("dub.motion_frames=25", "dub.motion_frames=25 leaves nothing of dub.window=25"),
        ("pairs.segment_frames=76", "pairs.segment_frames=76 does not fit the causal codec"),
    ],
)
def test_an_impossible_window_is_refused_when_the_recipe_is_read(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        small_recipe(setting)
