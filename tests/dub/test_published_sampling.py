"""Guidance, border, latents as motion, lead-in and colours of the published editors in the sampler of windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xdub.config import GuidanceConfig
from xdub.data.latents import to_video, window_features
from xdub.diffusion import euler_timesteps, guidance_weights, rounded_time, sample
from xdub.dub import window_sampler
from xdub.dub.colour import match_colours
from xdub.dub.editing import Editing
from xdub.dub.segments import Joining, mirror_index
from xdub.dub.tracks import Joiner, Track, generate
from xdub.dub.window import Window
from xdub.dub.window_sampler import to_pixels
from xdub.seeding import torch_rng
from xdub.speech_windows import speech_windows

STRONG = GuidanceConfig(reference=2.0, audio=3.0, audio_floor=0.5)


def track(crops, num_frames: int, seed: int) -> Track:
    sound = np.random.default_rng(seed).normal(0, 0.1, (num_frames + 50) * 640).astype(np.float32)
    return Track(frames=crops(num_frames, seed), sound=sound, noise=(0, seed))


def window(crops, seed: int, num_frames: int = 13) -> Window:
    one = track(crops, num_frames, seed)
    joiner = Joiner(num_frames, one.sound, one.noise, window=num_frames, motion=5)
    return joiner.window(joiner.segments[0], one.frames)


def slow_frames(sampler, window: Window, config: GuidanceConfig) -> np.ndarray:
    """Dub one window by Euler steps of three separate forward passes of training, with weights at rounded times."""
    geometry, model = sampler.codec.geometry, sampler.backbone
    z_ref = sampler.codec.encode(to_video(window.frames))
    speech = speech_windows(model.speech, geometry)
    audio = window_features(sampler.audio_encoder, window.sound, speech)[None]
    starts = torch.from_numpy(speech.starts(z_ref.shape[2]))
    z = torch.randn(z_ref.shape[1:], generator=torch_rng(*window.noise))[None]
    times = euler_timesteps(sampler.num_steps, sampler.shift).tolist()
    off = torch.tensor([False])
    for t, following in zip(times[:-1], times[1:], strict=True):
        now = torch.tensor([t])
        none = model(z, now, 0 * z_ref, audio, starts, audio_enabled=off)
        reference = model(z, now, z_ref, audio, starts, audio_enabled=off)
        both = model(z, now, z_ref, audio, starts)
        w_r, w_a = guidance_weights(config, rounded_time(t))
        z = z + (following - t) * (none + w_r * (reference - none) + w_a * (both - reference))
    return sampler._pixels(z)[0]


@pytest.mark.parametrize("batched", [True, False])
@torch.inference_mode()
def test_a_guided_window_is_that_of_three_separate_passes(make_sampler, crops, batched):
    config = replace(STRONG, batched=batched)
    editing = Editing(guidance=config, rounded=True)
    sampler = make_sampler("editor", num_steps=3, shift=3.0, editing=editing)
    windows = [window(crops, 1), window(crops, 2)]
    results = sampler(windows)
    for one, result in zip(windows, results, strict=True):
        np.testing.assert_allclose(result, slow_frames(sampler, one, config), atol=0.05)
    plain = make_sampler("editor", num_steps=3, shift=3.0)(windows)
    assert np.abs(np.stack(plain) - np.stack(results)).max() > 0.3


def test_guidance_of_weight_one_is_the_plain_editor(make_sampler, crops):
    config = GuidanceConfig(reference=1, reference_levels=(1, 1, 1), audio=1, audio_power=0)
    windows = [window(crops, 1)]
    guided = make_sampler("editor", editing=Editing(guidance=config))(windows)[0]
    np.testing.assert_allclose(guided, make_sampler("editor")(windows)[0], atol=0.02)


@pytest.mark.parametrize("border", ["every_step", "last_step"])
def test_the_outer_ring_of_latents_is_that_of_the_source(make_sampler, crops, border):
    sampler, one = make_sampler("editor", editing=Editing(border=border)), window(crops, 1)
    # The codec decodes every square of pixels by itself; smoothing of its grid reaches three pixels inwards.
    frames, source = sampler([one])[0], sampler.roundtrip(one.frames)
    np.testing.assert_allclose(frames[:, :5], source[:, :5], atol=0.01)
    np.testing.assert_allclose(frames[:, :, -5:], source[:, :, -5:], atol=0.01)
    assert np.abs(frames - source)[:, 12:20, 12:20].max() > 1


def test_windows_that_continue_latents_are_decoded_as_one_video(make_sampler, crops):
    sampler, decoded = make_sampler("editor"), []
    decode = sampler.codec.decode_next

    def spy(z, state):
        decoded.append((z.shape[2], state))
        return decode(z, state)

    sampler.codec.decode_next = spy
    tracks = [track(crops, 31, 1), track(crops, 20, 2)]
    settings = dict(window=13, motion=5, joining=Joining(by_latents=True))
    together = generate(tracks, sampler, batch=2, **settings)
    assert [len(frames) for frames in together] == [31, 20]
    # Both tracks begin with 4 latents. Every later window adds 2, even where it reaches beyond the end of the track.
    assert decoded == [(4, None), (4, None), (2, True), (2, True), (2, True)] + [(2, True)] * (
        len(decoded) - 5
    )
    for one, alone in zip(tracks, together, strict=True):
        np.testing.assert_allclose(generate([one], sampler, batch=1, **settings)[0], alone, atol=0.05)


def test_latents_of_the_last_window_begin_the_next_one_unchanged(make_sampler, crops):
    sampler, one = make_sampler("editor"), track(crops, 21, 1)
    joiner = Joiner(21, one.sound, one.noise, window=13, motion=5, joining=Joining(by_latents=True))
    first, second = joiner.segments
    assert (second.start, second.keep, second.stop) == (8, 13, 21)
    joiner.join(first, sampler([joiner.window(first, one.frames[:13])])[0])
    after = joiner.window(second, one.frames[8:])
    before = after.continuation.latents.clone()
    frames = sampler([after])[0]
    torch.testing.assert_close(after.continuation.latents[:, :2], before[:, -2:], atol=0, rtol=0)
    np.testing.assert_array_equal(frames[:5], after.motion)


def test_a_lead_in_repeats_the_first_frame_and_is_cut_off(make_sampler, crops):
    sampler, calls = make_sampler("editor"), []

    def spy(windows):
        calls.append(windows[0])
        return sampler(windows)

    spy.recording = sampler.recording
    one = track(crops, 20, 1)
    joined = generate([one], spy, window=13, motion=5, batch=1, joining=Joining(lead_in=True))[0]
    assert joined.shape == one.frames.shape
    first = calls[0]
    np.testing.assert_array_equal(first.motion, np.repeat(one.frames[:1], 5, 0))
    np.testing.assert_array_equal(first.frames, one.frames[[0] * 5 + list(range(8))])
    # The sound of a window begins a second before its first frame; here five frames more lie before the recording.
    assert not first.sound[: 5 * 640].any()
    np.testing.assert_array_equal(first.sound[5 * 640 :], one.sound[: (13 + 50 - 5) * 640])
    np.testing.assert_array_equal(joined[:8], sampler([first])[0][5:])


def test_colours_are_matched_before_the_next_window_reads_them(make_sampler, crops):
    sampler = make_sampler("editor", editing=Editing(colour="lab"))
    # Colours in the middle of the range stay inside of it when they are shifted.
    one = replace(track(crops, 21, 1), frames=96 + crops(21, 1) // 5)
    joined = generate([one], sampler, window=13, motion=5, batch=1)[0]
    plain = generate([one], make_sampler("editor"), window=13, motion=5, batch=1)[0]
    gap = [np.abs(x.mean((1, 2)) - one.frames.mean((1, 2))).max() for x in (joined, plain)]
    assert gap[0] < 2 < gap[1]


@pytest.mark.parametrize(
    ("join", "lead_in"), [("mean", False), ("latents", False), ("mean", True), ("latents", True)]
)
def test_windows_are_joined_as_the_releases_join_them(make_sampler, crops, monkeypatch, join, lead_in):
    """Clips of 13 frames continue 5 frames; their latents are cut, averaged and decoded at once, as in the release."""
    editing = Editing(colour="masked_rgb")
    sampler, one, latents, motions = make_sampler("editor", editing=editing), track(crops, 31, 1), [], []

    def recorded(*arguments, **options):
        latents.append(sample(*arguments, **options))
        motions.append(options["z_motion"])
        return latents[-1]

    monkeypatch.setattr(window_sampler, "sample", recorded)
    blend = 4 if join == "mean" else 0
    joining = Joining(together=True, blend=blend, lead_in=lead_in)
    settings = dict(window=13, motion=5, batch=1, joining=joining)
    frames = generate([one], sampler, **settings)[0]
    lead = 5 if lead_in else 0
    source = one.frames[np.maximum(0, mirror_index(31 + lead, 37) - lead)]
    joined = [latents[0]]
    for z in latents[1:]:
        if join == "mean":
            joined[-1] = torch.cat([joined[-1][:, :, :-1], (joined[-1][:, :, -1:] + z[:, :, 1:2]) / 2], 2)
        joined.append(z[:, :, 2:])
    video = to_pixels(sampler.codec.decode(torch.cat(joined, 2)))
    expected = match_colours(sampler._deblocked(video)[0], source, "masked_rgb")
    np.testing.assert_allclose(frames, expected[lead : lead + 31], atol=0.01)
    # The motion of a window is its predecessor's own last frames in their source's colours, encoded again.
    for n, (z, motion) in enumerate(zip(latents[:-1], motions[1:], strict=True)):
        own = match_colours(sampler._pixels(z)[0], source[8 * n : 8 * n + 13], "masked_rgb")[-5:]
        encoded = sampler.codec.encode(torch.from_numpy(own).permute(3, 0, 1, 2)[None] / 127.5 - 1)
        torch.testing.assert_close(motion, encoded, rtol=1e-4, atol=1e-4)
    latents.clear()
    together = generate([one, track(crops, 13, 2)], sampler, **{**settings, "batch": 2})
    np.testing.assert_allclose(together[0], frames, atol=0.05)
    settings["joining"] = Joining(lead_in=lead_in)
    plain = generate([one], make_sampler("editor", editing=editing), **settings)[0]
    joint = slice(9 - lead, 13 - lead)
    assert np.abs(plain[joint] - frames[joint]).max() > 1 or join == "latents"


@pytest.mark.parametrize("lead_in", [False, True])
def test_a_single_window_is_the_same_under_any_join(make_sampler, crops, lead_in):
    sampler, one = make_sampler("editor", editing=Editing(colour="lab")), track(crops, 8, 1)
    settings = dict(window=13, motion=5, batch=1)
    plain = generate([one], sampler, **settings, joining=Joining(lead_in=lead_in))[0]
    for blend in (0, 4):
        joining = Joining(together=True, blend=blend, lead_in=lead_in)
        np.testing.assert_array_equal(generate([one], sampler, **settings, joining=joining)[0], plain)
