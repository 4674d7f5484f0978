"""Segments cover a video exactly once; motion frames that are generated already bridge them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.dub.segments import count_segments, mirror_index, plan_segments, window_index

frames_4k1 = st.integers(0, 20).map(lambda k: 4 * k + 1)


@given(st.integers(1, 400), frames_4k1, frames_4k1)
def test_every_frame_is_contributed_once_and_in_order(num_frames: int, window: int, motion: int) -> None:
    motion = 0 if motion >= window else motion
    segments = plan_segments(num_frames, window, motion)
    assert [n for s in segments for n in range(s.keep, s.stop)] == list(range(num_frames))
    assert all(s.start <= s.keep < s.stop <= s.start + window for s in segments)


@given(st.integers(1, 400), st.integers(2, 10), st.integers(0, 2))
def test_motion_frames_are_the_last_frames_contributed_before(num_frames: int, k: int, m: int) -> None:
    motion = (0, 1, 5)[m]
    segments = plan_segments(num_frames, 4 * k + 1, motion)
    assert segments[0].motion == 0
    for before, after in zip(segments, segments[1:], strict=False):
        assert after.motion == motion
        assert after.start + motion == after.keep == before.stop


@given(st.integers(1, 200), st.integers(1, 10))
def test_a_window_reads_its_own_frames_and_mirrors_only_a_video_that_is_too_short(
    num_frames: int, k: int
) -> None:
    window = 4 * k + 1
    for segment in plan_segments(num_frames, window, 0):
        index = window_index(segment, num_frames, window)
        assert len(index) == window
        assert index.min() >= 0 and index.max() < num_frames
        real = min(window, num_frames - segment.start)
        np.testing.assert_array_equal(index[:real], np.arange(segment.start, segment.start + real))


def test_a_clip_of_45_frames_has_segments_of_25_and_of_20_new_frames() -> None:
    assert [(s.start, s.motion, s.keep, s.stop) for s in plan_segments(45, 25, 5)] == [
        (0, 0, 0, 25),
        (20, 5, 25, 45),
    ]


@given(st.integers(78, 300))
def test_windows_of_25_frames_that_share_5_frames_cover_a_training_clip_to_its_end(num_frames: int) -> None:
    """Paper B.3: 25 + 20 + 20 + 20 = 85 is the first sum over 77 frames; longer clips have more windows."""
    segments = plan_segments(num_frames, 25, 5)
    starts = [20 * n for n in range(len(segments) - 1)]
    assert len(segments) >= 4
    assert [s.start for s in segments] == [*starts, num_frames - 25]  # the last one ends with the clip
    assert [s.motion for s in segments] == [0] + [5] * (len(segments) - 1)
    assert [s.keep for s in segments] == [0, *(s.start + 5 for s in segments[1:])]
    # No window is superfluous.
    assert starts[-1] + 25 < num_frames <= starts[-1] + 45


def test_the_papers_77_frames_are_four_windows_or_one_pass() -> None:
    assert [(s.start, s.keep, s.stop) for s in plan_segments(77, 25, 5)] == [
        (0, 0, 25),
        (20, 25, 45),
        (40, 45, 57),
        (52, 57, 77),
    ]
    assert [(s.start, s.keep, s.stop) for s in plan_segments(85, 25, 5)][-1] == (60, 65, 85)
    assert [(s.start, s.motion, s.keep, s.stop) for s in plan_segments(77, 77, 5)] == [(0, 0, 0, 77)]


@given(st.integers(1, 30), st.integers(0, 200))
def test_a_mirrored_video_has_neither_jumps_nor_stops(count: int, length: int) -> None:
    index = mirror_index(count, length)
    assert len(index) == length
    assert count == 1 or (np.abs(np.diff(index)) == 1).all()
    np.testing.assert_array_equal(index[:count], np.arange(count)[:length])


@pytest.mark.parametrize(("window", "motion"), [(25, -1), (5, 5), (25, 29)])
def test_windows_without_frames_of_their_own_are_refused(window: int, motion: int) -> None:
    with pytest.raises(ValueError, match="motion_frames"):
        plan_segments(50, window, motion)


@given(frames=st.integers(1, 400), window=st.integers(2, 60), motion=st.integers(0, 59))
def test_segments_are_counted_without_a_list(frames: int, window: int, motion: int) -> None:
    motion = min(motion, window - 1)
    assert count_segments(frames, window, motion) == len(plan_segments(frames, window, motion))
    assert count_segments(10**12, 25, 5) == 5 * 10**10


@given(st.integers(1, 400), st.integers(2, 10))
def test_a_window_contributes_the_latent_at_a_join_where_both_windows_decide_it(
    num_frames: int, k: int
) -> None:
    window = 4 * k + 1
    segments = plan_segments(num_frames, window, 5, aligned=True, blend=4)
    assert [n for s in segments for n in range(s.keep, s.stop)] == list(range(num_frames))
    for before, after in zip(segments, segments[1:], strict=False):
        # Frame 0 of a window is the first of its latents, and frames 1 to 4 are the second.
        assert after.keep == before.stop == after.start + 1
        assert before.stop - before.start == window - 4


@given(st.integers(1, 400), st.integers(2, 10), st.integers(1, 2), st.booleans(), st.booleans())
def test_published_windows_contribute_every_frame_once_behind_their_motion_frames(
    num_frames: int, k: int, m: int, aligned: bool, lead_in: bool
) -> None:
    window, motion = 4 * k + 1, (0, 1, 5)[m]
    segments = plan_segments(num_frames, window, motion, aligned=aligned, lead_in=lead_in)
    assert [n for s in segments for n in range(s.keep, s.stop)] == list(range(num_frames))
    assert len(segments) == count_segments(num_frames, window, motion, lead_in=lead_in)
    first = segments[0]
    assert (first.start, first.motion) == ((-motion, motion) if lead_in else (0, 0))
    for before, after in zip(segments, segments[1:], strict=False):
        assert after.motion == motion and after.start + motion == after.keep == before.stop
        # A latent covers four frames, so the next window begins at a latent of this one.
        assert not aligned or after.start - before.start == window - motion
    for segment in segments:
        index = window_index(segment, num_frames, window)
        assert len(index) == window and index.min() >= 0 and index.max() < num_frames
    if lead_in:
        assert not window_index(first, num_frames, window)[: motion + 1].any()
