"""Windows and their latents: aligned speech, hidden faces, true references, and randomness from the generator only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from xdub.data.latents import encode_batch, to_video, window_features
from xdub.data.samples import collate
from xdub.data.sound import surrounded, window_sound
from xdub.data.testing import FrameIndexAudio, PatchCodec, make_clip
from xdub.data.windows import cut_window, draw_window, pick_reference, window_starts
from xdub.errors import UserError
from xdub.model.audio_encoder import LogMelEncoder
from xdub.seeding import rng
from xdub.speech_windows import speech_windows

FRAMES = speech_windows("frames", PatchCodec.geometry)
"""Windows of the recipes that train a model from nothing."""


def window(clip, phase: str, size: int = 9, seed: int = 0) -> dict:
    """Return a sample with its latents."""
    batch = collate([cut(clip, phase, size, seed)])
    encoded = encode_batch(batch, PatchCodec(), FrameIndexAudio(), "cpu")
    names = (
        "z0",
        "z_ref",
        "z_mask",
        "audio",
        "sound",
        "face_mask",
        "lip_mask",
        "landmarks",
        "window_starts",
        "sample_id",
    )
    sample = {name: encoded[name][0] for name in names if name in encoded}
    return sample | {"starts": encoded["starts"], "start": int(sample.pop("window_starts"))}


def cut(clip, phase: str, size: int = 9, seed: int = 0) -> dict:
    sample = cut_window(clip, phase=phase, window=size, geometry=PatchCodec.geometry, rng=rng(seed))
    return sample | {"epoch": 0, "position": 0, "bad": {}}


def row_numbers(rows: int) -> np.ndarray:
    """Return sound in which every 20 ms row has its own number as its mean, from 0 at the first frame on."""
    return np.repeat(np.arange(rows, dtype=np.float32), 320)


def test_rows_beyond_a_recording_are_zeros_and_silence_within_it_is_not() -> None:
    encoder, audio = LogMelEncoder(16), np.zeros(640 * 20, np.float32)
    audio[640 * 8 : 640 * 12] = np.random.default_rng(0).normal(0, 0.1, 640 * 4)
    rows = window_features(encoder, window_sound(surrounded(audio), 0, 20), FRAMES)
    assert rows.shape == (48, 16) and not rows[:4].any() and not rows[-4:].any()
    silent = [*rows[4:19], *rows[-19:-4]]
    torch.testing.assert_close(torch.stack(silent), torch.full((30, 16), -1.0))
    assert (rows[22:26] > -0.8).any(1).all()


def test_each_latent_gets_its_own_features_and_four_on_either_side() -> None:
    sound = surrounded(row_numbers(100))
    for start in (3, 10):
        rows = window_features(FrameIndexAudio(), window_sound(sound, start, 13), FRAMES)[:, 1:]
        assert rows.shape == (2 * 13 + 8, 1)
        starts = FRAMES.starts(4)
        first = rows[starts[0] : starts[0] + 16, 0]
        assert first[4] == 2 * start, "four rows precede the first frame's features"
        for k in range(1, 4):
            own = torch.arange(2 * (start + 4 * k - 3), 2 * (start + 4 * k) + 2).float()
            span = rows[starts[k] : starts[k] + 16, 0]
            assert len(span) == 16 and torch.equal(span[4:12], own)


def test_the_sound_around_a_clip_is_that_of_its_source_or_silence() -> None:
    before, after = np.full(640, -7, np.float32), np.full(1280, 5, np.float32)
    clip = make_clip(5, num_frames=9, audio=row_numbers(18), sound_before=before, sound_after=after)
    (rows,) = cut(clip, "generator")["sound"].reshape(1, -1, 320)
    means = rows.mean(1)
    assert len(means) == 2 * 59
    assert (means[:48] == 0).all() and (means[48:50] == -7).all()
    np.testing.assert_allclose(means[50:68], np.arange(18), atol=1e-9)
    assert (means[68:72] == 5).all() and (means[72:] == 0).all()
    silent = cut(make_clip(5, num_frames=9, audio=row_numbers(18)), "generator")["sound"]
    assert not silent[:16_000].any() and not silent[-16_000:].any()
    assert (window_sound(surrounded(row_numbers(18)), 100, 5) == 0).all()


@pytest.mark.parametrize(("phase", "pair"), [("generator", False), ("editor", True), ("lip", True)])
def test_samples_have_the_documented_shapes_and_depend_on_the_random_generator(
    phase: str, pair: bool
) -> None:
    clip = make_clip(1, num_frames=21, pair=pair)
    sample, again, other = window(clip, phase), window(clip, phase), window(clip, phase, seed=1)
    channels, size = PatchCodec.geometry.channels, 32 // 8
    assert sample["z0"].shape == (channels, 3, size, size)
    assert sample["z_ref"].shape == (channels, 3 if pair else 1, size, size)
    assert sample["sound"].shape == ((9 + 50) * 640,)
    assert sample["audio"].shape == (26, FrameIndexAudio.dim) and sample["starts"].tolist() == [0, 2, 10]
    assert sample["face_mask"].shape == sample["lip_mask"].shape == (1, 3, size, size)
    assert ("z_mask" in sample) == (phase == "generator")
    for name, value in sample.items():
        assert torch.equal(value, again[name]) if isinstance(value, Tensor) else value == again[name], name
    assert other["start"] != sample["start"]


def test_the_window_is_cut_at_its_start_in_pixels_and_sound() -> None:
    clip = make_clip(2, num_frames=21, pair=True)
    codec = PatchCodec()
    sample = window(clip, "editor")
    frames = slice(sample["start"], sample["start"] + 9)
    assert torch.equal(sample["z0"], codec.encode(to_video(clip.frames[frames]))[0])
    assert torch.equal(sample["z_ref"], codec.encode(to_video(clip.reference[frames]))[0])
    assert torch.equal(sample["landmarks"], torch.from_numpy(clip.landmarks[frames]))
    low = (sample["start"] - 2) * 640
    sound = np.pad(clip.audio, 16_000)[16_000 + low : 16_000 + low + 13 * 640]
    torch.testing.assert_close(sample["audio"][:, 1], torch.from_numpy(sound.reshape(-1, 320).mean(1)))


def test_the_generator_sees_no_visible_face_pixel_but_every_occluder() -> None:
    clip = make_clip(3, num_frames=21)
    codec = PatchCodec()
    sample = window(clip, "generator")
    frames = slice(sample["start"], sample["start"] + 9)
    hidden = clip.frames[frames].astype(np.float32)
    hidden[clip.visible_mask[frames]] = 127.5
    want = codec.encode(torch.from_numpy(hidden).permute(3, 0, 1, 2)[None] / 127.5 - 1)[0]
    torch.testing.assert_close(sample["z_mask"], want)
    repainted = clip.frames.copy()
    repainted[clip.visible_mask] = 7
    other = make_clip(3, num_frames=21, frames=repainted)
    assert torch.equal(window(other, "generator")["z_mask"], sample["z_mask"])


def test_the_reference_is_a_frame_outside_the_window_if_the_clip_has_one() -> None:
    drawn = {pick_reference(12, 3, 8, rng(i)) for i in range(100)}
    assert drawn == {0, 1, 2, 11}
    assert {pick_reference(5, 0, 5, rng(i)) for i in range(100)} == set(range(5))
    clip = make_clip(4, num_frames=21)
    z_ref = window(clip, "generator")["z_ref"]
    singles = [PatchCodec().encode(to_video(clip.frames[i : i + 1]))[0] for i in range(21)]
    assert sum(torch.equal(z_ref, single) for single in singles) == 1


def test_windows_and_references_lie_on_the_grid_of_the_stride_and_a_stride_of_one_changes_no_draw() -> None:
    def draws(stride: int, frames: int = 45, size: int = 9) -> set[tuple[int, int | None]]:
        options = {"phase": "generator", "window": size, "stride": stride}
        draws = [draw_window("clip", frames, rng=rng(i), **options) for i in range(200)]
        return {(draw.start, draw.reference) for draw in draws}

    grid = draws(12)
    assert {start for start, _ in grid} == {0, 12, 24, 36} == set(window_starts(45, 9, 12))
    assert all(frame in (0, 12, 24, 36) and not start <= frame < start + 9 for start, frame in grid)
    assert draws(12, frames=9) == {(0, 0)}, "a clip of one window has a frame of the window as its reference"
    random, draw = rng(7), draw_window("clip", 45, phase="generator", window=9, rng=rng(7))
    assert draw.start == int(random.integers(45 - 9 + 1))
    outside = np.setdiff1d(np.arange(45), np.arange(draw.start, draw.start + 9))
    assert draw.reference == int(random.choice(outside))


def test_short_clips_and_clips_without_reference_are_refused() -> None:
    with pytest.raises(UserError, match="has 5 frames, the generator window needs 9"):
        window(make_clip(0, num_frames=5), "generator")
    with pytest.raises(UserError, match="trains on pairs"):
        window(make_clip(0), "editor")


@pytest.mark.parametrize("phase", ["generator", "editor"])
def test_latents_depend_neither_on_the_batch_nor_on_the_number_of_threads(phase: str) -> None:
    clips = [make_clip(seed, num_frames=n, pair=phase == "editor") for seed, n in enumerate((9, 13, 21))]
    alone = [window(clip, phase) for clip in clips]
    batch = collate([cut(clip, phase) for clip in clips])
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            together = encode_batch(batch, PatchCodec(), FrameIndexAudio(), "cpu")
            assert torch.get_num_threads() == threads
            for name in ("z0", "z_ref", "audio"):
                assert together[name].dtype == torch.float32 and together[name].is_contiguous()
                assert torch.equal(together[name], torch.stack([sample[name] for sample in alone])), name
    finally:
        torch.set_num_threads(before)
    assert not {"frames", "reference", "hidden"} & together.keys()
    assert batch["frames"].dtype == np.uint8, "the stream's batch is unchanged"


def test_encoding_keeps_no_graph_and_needs_no_gradient() -> None:
    class Learned(PatchCodec):
        def encode(self, video: Tensor) -> Tensor:
            return super().encode(video) * torch.ones(1, requires_grad=True)

    batch = encode_batch(collate([cut(make_clip(0), "generator")]), Learned(), FrameIndexAudio(), "cpu")
    assert not batch["z0"].requires_grad
