"""Windows of several videos in one batch, and their joins."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from xdub.diffusion.sampler import SOLVERS
from xdub.dub.testing import Uncached, small_recipe
from xdub.dub.tracks import Joiner, Track, generate
from xdub.dub.window import Window
from xdub.dub.window_sampler import WindowSampler, bands_of, expert_at, reference_frame
from xdub.model.audio_encoder import LogMelEncoder
from xdub.model.testing import add_experts, random_backbone, random_codec


def _track(crops, num_frames: int, seed: int, masked: bool) -> Track:
    hidden = np.zeros((num_frames, 32, 32), bool)
    hidden[:, 16:, 8:24] = True
    sound = np.random.default_rng(seed).normal(0, 0.1, (num_frames + 50) * 640).astype(np.float32)
    return Track(
        frames=crops(num_frames, seed), sound=sound, noise=(0, seed), hidden=hidden if masked else None
    )


def test_tracks_of_any_length_are_generated_whole_and_do_not_depend_on_their_batch(
    make_sampler, crops, recipe
) -> None:
    for phase in ("generator", "editor"):
        sampler = make_sampler(phase)
        tracks = [_track(crops, n, n, phase == "generator") for n in (3, 25, 31, 50)]
        settings = dict(window=25, motion=5)
        together = generate(tracks, sampler, batch=4, **settings)
        alone = [generate([track], sampler, batch=1, **settings)[0] for track in tracks]
        for track, one, other in zip(tracks, together, alone, strict=True):
            assert one.shape == track.frames.shape
            np.testing.assert_allclose(one, other, atol=0.05)  # of 255: sums have another order


def test_a_later_window_begins_with_the_frames_generated_before(make_sampler, crops, recipe) -> None:
    sampler, calls = make_sampler("editor"), []

    def spy(windows):
        out = sampler(windows)
        calls.append((windows[0], out[0]))
        return out

    spy.recording = sampler.recording
    track = _track(crops, 40, 1, False)
    joined = generate([track], spy, window=25, motion=5, batch=1)[0]
    (first, _), (second, output) = calls
    assert first.motion is None
    np.testing.assert_array_equal(second.motion, joined[15:20])
    np.testing.assert_array_equal(output[:5], second.motion)
    np.testing.assert_array_equal(output[5:], joined[20:])
    np.testing.assert_array_equal(second.frames, track.frames[15:])


def test_frames_depend_on_the_new_speech_and_silence_follows_its_end(make_sampler, crops, recipe) -> None:
    sampler = make_sampler("editor")
    track = _track(crops, 25, 1, False)
    other = Track(frames=track.frames, sound=track.sound[::-1].copy(), noise=track.noise)
    short = Track(frames=track.frames, sound=track.sound[:17_000], noise=track.noise)
    one, two, three = generate([track, other, short], sampler, window=25, motion=5, batch=3)
    assert np.abs(one - two).max() > 1e-3
    assert np.isfinite(three).all()


def test_a_generator_reads_the_hidden_pixels_of_its_reference_frame_only(make_sampler, crops, recipe) -> None:
    sampler = make_sampler("generator")
    track = _track(crops, 25, 1, True)
    changed = track.frames.copy()
    changed[:12][track.hidden[:12]] = 0  # all frames but the middle one, the reference frame
    changed[13:][track.hidden[13:]] = 0
    other = Track(frames=changed, sound=track.sound, noise=track.noise, hidden=track.hidden)
    one, two = generate([track, other], sampler, window=25, motion=5, batch=2)
    np.testing.assert_allclose(one, two, atol=0.05)


def test_the_reference_frame_is_the_most_central_of_the_frames_that_show_the_face() -> None:
    hidden = np.zeros((9, 4, 4), bool)
    hidden[:, 2:] = True
    assert reference_frame(hidden) == 4
    hidden[3:6] = False  # an occluder passes
    assert reference_frame(hidden) in (2, 6)


def test_experts_are_on_inside_their_bands_only(recipe) -> None:
    bands = bands_of(recipe, ("lip", "texture"))
    assert [expert_at(t, bands) for t in (1.0, 0.6, 0.5, 0.4, 0.35, 0.3, 0.1, 0.0)] == [
        None, None, "lip", None, None, None, "texture", None,
    ]  # fmt: skip
    assert bands_of(recipe, ("lip",)) == [("lip", (0.4, 0.6))]


@pytest.mark.parametrize("solver", SOLVERS)
def test_conditions_are_computed_only_when_an_expert_is_switched_on_or_off(
    make_sampler, crops, recipe, monkeypatch, solver
) -> None:
    options = {"num_steps": 20, "bands": (("lip", (0.4, 0.6)), ("texture", (0.0, 0.3))), "solver": solver}
    sampler = make_sampler("editor", **options)
    add_experts(sampler.backbone, recipe)
    (window,) = _windows(crops, recipe, "editor", 1)
    computed, times, conditions = [], [], sampler.backbone.conditions
    monkeypatch.setattr(
        sampler.backbone, "conditions", lambda *a, **k: computed.append(1) or conditions(*a, **k)
    )
    result = sampler([window], times.append)[0]
    experts = [expert_at(t, sampler.bands) for t in times]
    assert len(computed) == 1 + sum(a != b for a, b in pairwise(experts)) >= 4
    expected = WindowSampler(Uncached(sampler.backbone), sampler.codec, sampler.audio_encoder, **options)(
        [window]
    )[0]
    np.testing.assert_allclose(result, expected, atol=0.02)  # of 255
    sampler.bands = ()
    assert np.abs(result - sampler([window])[0]).max() > 0.2


def test_a_compiled_step_always_runs_on_the_batch_size_that_it_was_compiled_for(
    make_sampler, crops, recipe, monkeypatch
) -> None:
    windows, sizes = _windows(crops, recipe, "generator", 3), []

    def compiled(step, **options):
        assert options == {"dynamic": False, "fullgraph": True}
        return lambda z_t, t, conditions: sizes.append(len(z_t)) or step(z_t, t, conditions)

    monkeypatch.setattr(torch, "compile", compiled)
    sampler = make_sampler("generator", compile_for=3)
    for count in (3, 1, 2):
        result = sampler(windows[:count])
        expected = make_sampler("generator")(windows[:count])
        np.testing.assert_allclose(np.stack(result), np.stack(expected), atol=0.05)
    assert set(sizes) == {3}
    with pytest.raises(ValueError, match="4 windows for a step compiled for 3"):
        sampler([*windows, windows[0]])


@pytest.mark.parametrize("phase", ["generator", "editor"])
def test_the_compiler_sees_the_whole_step_as_one_graph_under_all_conditions(crops, phase) -> None:
    """A graph break, or one graph for each window or time, would cost more than compiling saves."""
    recipe, graphs = small_recipe("model.num_layers=1"), CompileCounter()
    codec = random_codec(recipe.codec.channels)
    sampler = WindowSampler(
        random_backbone(recipe, phase, codec), codec, LogMelEncoder(recipe.audio.dim), num_steps=2
    )
    windows = _windows(crops, recipe, phase, 2)
    eager = sampler(windows)
    sampler._velocity = torch.compile(
        sampler.backbone.velocity, dynamic=False, fullgraph=True, backend=graphs
    )
    for _ in range(2):
        np.testing.assert_allclose(sampler(windows), eager, atol=0.05)
    sampler([replace(window, motion=eager[0][-5:]) for window in windows])
    assert graphs.frame_count == 1


def _windows(crops, recipe, phase: str, count: int) -> list[Window]:
    tracks = [_track(crops, 25, n, phase == "generator") for n in range(count)]
    joiners = [Joiner(25, t.sound, t.noise, window=25, motion=5) for t in tracks]
    return [j.window(j.segments[0], t.frames, t.hidden) for j, t in zip(joiners, tracks, strict=True)]
