"""Reading of a video back and forth in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdub.dub.segments import mirror_index
from xdub.dub.source import mirrored_frames
from xdub.media import write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write eleven frames whose brightness is 20 times their number."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    write_video(path, (np.full((32, 48, 3), 20 * n, np.uint8) for n in range(11)), crf=5)
    return path


@pytest.mark.parametrize("length", [1, 11, 12, 21, 22, 47])
@pytest.mark.parametrize("memory", [1, 4 * 32 * 48 * 3, 1 << 30])
def test_frames_are_read_forwards_and_backwards_in_the_order_of_mirror_index(
    video: Path, length: int, memory: int
) -> None:
    shown = [round(frame.mean() / 20) for frame in mirrored_frames(video, 11, length, memory=memory)]
    assert shown == mirror_index(11, length).tolist()


def test_a_video_of_one_frame_repeats_its_frame(video: Path) -> None:
    assert len([*mirrored_frames(video, 1, 5)]) == 5
