"""Reference frames of another segment: chosen in preparation, stored, and drawn by the training windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xdub.data.clip import from_row, schema, to_row
from xdub.data.references import with_references
from xdub.data.spans import Span
from xdub.data.testing import make_clip
from xdub.data.windows import cut_window
from xdub.geometry import CodecGeometry

GEOMETRY = CodecGeometry(channels=48, time=4, space=8)


def span() -> Span:
    return Span(0, 90, np.zeros((90, 68, 2)), np.zeros((90, 3)))


def piece(owner: Span, number: int):
    """Return a piece of 9 frames whose pixels are 10 x number + frame."""
    return (
        9 * number,
        owner,
        np.full((9, 4, 4, 3), 10 * number, np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None],
    )


def test_a_piece_gets_frames_of_its_neighbour_and_a_lone_piece_none():
    one, other = span(), span()
    pieces = [piece(one, 0), piece(one, 1), piece(one, 2), piece(other, 3)]
    results = list(with_references(iter(pieces), 3))
    assert [item[0][0] for item in results] == [0, 9, 18, 27]
    shown = [None if item[1] is None else item[1][:, 0, 0, 0].tolist() for item in results]
    assert shown == [[11, 14, 17], [1, 4, 7], [11, 14, 17], None]
    assert all(item[1] is None for item in with_references(iter(pieces), 0))


def test_at_most_two_pieces_are_read_ahead_of_the_one_that_is_used():
    owner, read = span(), []

    def pieces():
        for number in range(6):
            read.append(number)
            yield piece(owner, number)

    for used, _ in enumerate(with_references(pieces(), 2)):
        assert len(read) <= used + 2


@pytest.mark.parametrize("phase", ["generator"])
def test_a_window_shows_a_frame_of_the_other_segment_and_sets_without_one_draw_as_before(phase):
    clip = make_clip(1, size=64, num_frames=13)
    other = np.stack([np.full((64, 64, 3), 200 + number, np.uint8) for number in range(4)])
    options = {"phase": phase, "window": 9, "geometry": GEOMETRY}
    before = cut_window(clip, rng=np.random.default_rng(3), **options)
    numbers = set()
    for seed in range(12):
        sample = cut_window(replace(clip, references=other), rng=np.random.default_rng(seed), **options)
        assert sample["reference"].shape == (1, 64, 64, 3) and sample["reference"].min() >= 200
        numbers.add(int(sample["reference"][0, 0, 0, 0]))
    assert numbers == {200, 201, 202, 203}
    assert np.array_equal(before["reference"][0], clip.frames[int(frame_of(clip, before))])


def frame_of(clip, sample) -> int:
    """Return the frame of the clip that a sample has as its reference."""
    return int(np.flatnonzero((clip.frames == sample["reference"][0]).all(axis=(1, 2, 3)))[0])


def test_the_references_are_stored_and_rows_of_earlier_versions_have_none():
    clip = make_clip(1, size=64, num_frames=13)
    other = np.repeat(clip.frames[:4], 1, axis=0)
    row = to_row(replace(clip, references=other))
    assert set(row) == set(schema().names)
    back = from_row(row)
    assert back.references is not None and back.references.shape == other.shape
    assert np.abs(back.references.astype(int) - other).mean() < 3
    del row["references"]
    assert from_row(row).references is None
