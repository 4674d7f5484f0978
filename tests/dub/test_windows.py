"""Windows of several videos in one batch, and their joins."""

from __future__ import annotations

import numpy as np
import torch

from xdub.dub.tracks import Track, generate
from xdub.dub.windows import bands_of, expert_at, reference_frame


def _track(crops, num_frames: int, seed: int, dim: int, masked: bool) -> Track:
    hidden = np.zeros((num_frames, 32, 32), bool)
    hidden[:, 16:, 8:24] = True
    features = torch.randn(2 * num_frames, dim, generator=torch.Generator().manual_seed(seed))
    return Track(
        frames=crops(num_frames, seed), features=features, noise=(0, seed), hidden=hidden if masked else None
    )


def test_tracks_of_any_length_come_back_whole_and_do_not_depend_on_their_batch(
    make_sampler, crops, recipe
) -> None:
    for phase in ("generator", "editor"):
        sampler = make_sampler(phase)
        tracks = [_track(crops, n, n, recipe.audio.dim, phase == "generator") for n in (3, 25, 31, 50)]
        settings = dict(window=25, motion=5)
        together = generate(tracks, sampler, batch=4, **settings)
        alone = [generate([track], sampler, batch=1, **settings)[0] for track in tracks]
        for track, one, other in zip(tracks, together, alone, strict=True):
            assert one.shape == track.frames.shape
            np.testing.assert_allclose(one, other, atol=0.05)  # of 255; sums of another order


def test_a_later_window_begins_with_the_frames_generated_before(make_sampler, crops, recipe) -> None:
    sampler, seen = make_sampler("editor"), []

    def spy(windows):
        out = sampler(windows)
        seen.append((windows[0], out[0]))
        return out

    track = _track(crops, 40, 1, recipe.audio.dim, False)
    joined = generate([track], spy, window=25, motion=5, batch=1)[0]
    (first, _), (second, output) = seen
    assert first.motion is None
    np.testing.assert_array_equal(second.motion, joined[15:20])
    np.testing.assert_array_equal(output[:5], second.motion)
    np.testing.assert_array_equal(output[5:], joined[20:])
    np.testing.assert_array_equal(second.frames, track.frames[15:])


def test_the_new_speech_decides_the_frames_and_silence_follows_its_end(make_sampler, crops, recipe) -> None:
    sampler = make_sampler("editor")
    track = _track(crops, 25, 1, recipe.audio.dim, False)
    other = Track(frames=track.frames, features=track.features.flip(0), noise=track.noise)
    short = Track(frames=track.frames, features=track.features[:10], noise=track.noise)
    one, two, three = generate([track, other, short], sampler, window=25, motion=5, batch=3)
    assert np.abs(one - two).max() > 1e-3
    assert np.isfinite(three).all()


def test_a_generator_sees_nothing_of_the_hidden_pixels_but_one_frame(make_sampler, crops, recipe) -> None:
    sampler = make_sampler("generator")
    track = _track(crops, 25, 1, recipe.audio.dim, True)
    changed = track.frames.copy()
    changed[:12][track.hidden[:12]] = 0  # all but the middle, its reference frame
    changed[13:][track.hidden[13:]] = 0
    other = Track(frames=changed, features=track.features, noise=track.noise, hidden=track.hidden)
    one, two = generate([track, other], sampler, window=25, motion=5, batch=2)
    np.testing.assert_allclose(one, two, atol=0.05)


def test_the_reference_frame_is_the_central_one_of_those_that_show_the_face() -> None:
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
