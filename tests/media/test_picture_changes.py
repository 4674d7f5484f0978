"""All frames of a video have the size of its first frame, whatever changes in the stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdub.media import probe, read_frames, read_video


def join(target: Path, *parts: Path) -> Path:
    """Concatenate MPEG transport streams."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def second(n: int) -> list[float]:
    """Return the times of 25 frames in second ``n``."""
    return [1 + n + frame / 25 for frame in range(25)]


def test_a_video_that_changes_its_size_keeps_the_first(media, tmp_path):
    parts = [
        media.video(f"{n}.ts", size=size, times=second(n))
        for n, size in enumerate([(128, 96), (64, 48), (192, 144)])
    ]
    path = join(tmp_path / "sizes.ts", *parts)
    frames = read_frames(path)
    assert frames.shape == (75, 96, 128, 3) and (probe(path).width, probe(path).height) == (128, 96)
    assert [media.number(frame) for frame in frames] == [*range(25)] * 3
    fast = np.stack(list(read_video(path, exact=False)))
    assert fast.shape == frames.shape


@pytest.mark.parametrize(
    ("size", "bars"), [((48, 48), (slice(None), slice(0, 8))), ((64, 24), (slice(0, 12),))]
)
def test_a_change_of_aspect_adds_black_bars_and_distorts_nothing(size, bars, media, tmp_path):
    parts = media.video("0.ts", times=second(0)), media.video("1.ts", size=size, times=second(1))
    frame = read_frames(join(tmp_path / "aspect.ts", *parts))[40]
    assert frame.shape == (48, 64, 3)
    assert frame[bars].max() == 0 and frame[::-1, ::-1][bars].max() == 0
    rest = frame[:, 8:-8] if size[0] == 48 else frame[12:-12]
    expected = media.ramp(15, *size)
    assert rest.shape == expected.shape and np.abs(rest.astype(int) - expected).mean() < 4


def test_a_video_may_change_its_pixel_format_and_matrix(media, tmp_path):
    parts = [
        media.video("0.ts", times=second(0)),
        media.video("1.ts", times=second(1), pix_fmt="yuv444p"),
        media.video("2.ts", times=second(2), pix_fmt="yuv420p10le"),
    ]
    assert media.numbers(join(tmp_path / "formats.ts", *parts)) == [*range(25)] * 3
