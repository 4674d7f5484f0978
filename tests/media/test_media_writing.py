"""Videos are written completely or not at all, with exact length, even sizes and synchronous sound."""

from __future__ import annotations

import errno
import os

import av
import numpy as np
import pytest

from xdub.errors import UserError
from xdub.media import (
    decode_clip_bytes,
    encode_clip_bytes,
    probe,
    read_audio,
    read_frames,
    read_video,
    write_video,
)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("seconds", [0.4, 1.0, 3.0])
def test_frame_count_and_duration_do_not_depend_on_the_sound(media, tmp_path, seconds):
    path = tmp_path / "o.mp4"
    assert write_video(path, media.ramps(25), audio=media.tone(seconds, 16000)) == 25
    info = probe(path)
    assert (info.frames, info.fps, info.duration) == (25, 25.0, 1.0)
    assert [media.number(f) for f in read_video(path)] == list(range(25))
    sound = read_audio(path)
    assert sound.size == 16000
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(1_000_000, abs=2000)
    heard = min(seconds, 1.0)
    assert np.corrcoef(sound[: int(heard * 16000)], media.tone(heard, 16000))[0, 1] > 0.99


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv"])
def test_every_supported_type_is_written_without_a_warning(media, tmp_path, suffix, caplog):
    assert write_video(tmp_path / f"v{suffix}", media.ramps(2)) == 2
    assert not caplog.records


def test_a_film_without_sound_has_no_audio_stream(media, tmp_path):
    write_video(tmp_path / "o.mp4", media.ramps(5))
    assert not probe(tmp_path / "o.mp4").has_audio


def test_odd_sizes_grow_by_one_repeated_pixel(tmp_path):
    rng = np.random.default_rng(0)
    odd = np.repeat(rng.integers(60, 200, (1, 31, 3), dtype=np.uint8), 47, axis=0)[:, :31]
    write_video(tmp_path / "o.mp4", [odd] * 3, crf=0)
    got = read_frames(tmp_path / "o.mp4")
    assert got.shape == (3, 48, 32, 3)


def test_colours_survive_writing_and_reading(tmp_path):
    patches = np.zeros((48, 64, 3), np.uint8)
    patches[:24, :32], patches[:24, 32:] = (200, 40, 40), (40, 180, 60)
    patches[24:, :32], patches[24:, 32:] = (50, 60, 210), (128, 128, 128)
    write_video(tmp_path / "o.mp4", [patches] * 3, crf=4)
    got = read_frames(tmp_path / "o.mp4")[1].astype(int)
    for y, x in [(12, 16), (12, 48), (36, 16), (36, 48)]:
        assert np.abs(got[y, x] - patches[y, x]).max() <= 3


def test_a_failing_source_leaves_the_old_file_and_no_other(media, tmp_path):
    path = tmp_path / "o.mp4"
    path.write_bytes(b"old")

    def broken():
        yield media.ramp(0)
        raise RuntimeError("source died")

    with pytest.raises(RuntimeError):
        write_video(path, broken(), audio=media.tone(1, 16000))
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"] and path.read_bytes() == b"old"


def test_a_frame_of_another_size_is_refused(media, tmp_path):
    with pytest.raises(ValueError, match="frame 1"):
        write_video(tmp_path / "o.mp4", [media.ramp(0), media.ramp(1, 32, 32)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [("no/such/o.mp4", "does not exist"), ("o.xyz", "unknown video type"), ("sub", "unknown video type")],
)
def test_bad_targets_are_named(media, tmp_path, name, text):
    with pytest.raises(UserError, match=text):
        write_video(tmp_path / name, media.ramps(2))


def test_a_video_without_frames_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no frame"):
        write_video(tmp_path / "o.mp4", [])


def test_a_full_disk_is_a_user_error(media, tmp_path):
    def full():
        yield media.ramp(0)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="disk is full"):
        write_video(tmp_path / "o.mp4", full())
    assert not list(tmp_path.iterdir())


def leave_garbage(seed: int) -> None:
    """Fill and free memory of the sizes that encoders allocate."""
    rng = np.random.default_rng(seed)
    for width in rng.integers(16, 128, 20):
        picture = rng.integers(0, 255, (96, int(width), 3), dtype=np.uint8)
        av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p")
    for size in rng.integers(1000, 200_000, 60):
        rng.integers(0, 255, int(size), dtype=np.uint8)


def test_clip_bytes_are_deterministic_and_nearly_lossless():
    rng = np.random.default_rng(1)
    base = rng.integers(60, 200, (10, 14, 3)).astype(np.float32)
    import cv2

    rolled = (np.roll(base, n, axis=1) for n in range(9))
    clip = np.stack([cv2.resize(image, (81, 80), interpolation=cv2.INTER_CUBIC) for image in rolled])
    clip = clip.clip(0, 255).astype(np.uint8)
    data = encode_clip_bytes(clip)
    for seed in range(4):
        leave_garbage(seed)
        assert encode_clip_bytes(clip) == data
    got = decode_clip_bytes(data)
    assert got.shape == clip.shape and psnr(got, clip) > 40
    assert psnr(decode_clip_bytes(encode_clip_bytes(clip, crf=0)), clip) > 46


def test_clip_bytes_can_hold_a_single_frame():
    clip = np.full((1, 16, 16, 3), 77, np.uint8)
    assert np.abs(decode_clip_bytes(encode_clip_bytes(clip)).astype(int) - 77).max() <= 1


def test_damaged_clip_bytes_are_refused(media):
    data = encode_clip_bytes(np.stack(media.ramps(10)))
    for broken in (b"", b"nonsense" * 10, data[: len(data) // 2]):
        with pytest.raises(UserError, match="corrupt|truncated"):
            decode_clip_bytes(broken)


def test_a_file_system_that_refuses_chmod_gets_the_video(media, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    write_video(tmp_path / "o.mp4", media.ramps(2))
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"] and probe(tmp_path / "o.mp4").frames == 2


def test_a_finished_video_remains_where_the_last_rename_fails(media, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(UserError, match="is complete, but cannot be renamed to o.mp4"):
        write_video(tmp_path / "o.mp4", media.ramps(2))
    (saved,) = tmp_path.iterdir()
    assert probe(saved).frames == 2


def test_the_longest_name_is_written_and_a_link_stays_a_link(media, tmp_path):
    for name in ("x" * 245 + ".mp4", "x" * 251 + ".mp4"):
        write_video(tmp_path / name, media.ramps(2))
        assert probe(tmp_path / name).frames == 2
    (tmp_path / "link.mp4").symlink_to("target.mp4")
    write_video(tmp_path / "link.mp4", media.ramps(2))
    assert (tmp_path / "link.mp4").is_symlink() and probe(tmp_path / "target.mp4").frames == 2
