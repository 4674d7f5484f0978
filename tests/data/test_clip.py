"""Clips are encoded as rows and decoded; damaged rows and rows of other versions are errors."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.data.clip import clip_id_of, from_row, schema, to_row
from xdub.data.testing import make_clip
from xdub.errors import UserError


@pytest.mark.parametrize("pair", [False, True])
def test_a_clip_survives_a_round_trip_through_an_arrow_table(pair: bool) -> None:
    import pyarrow as pa

    clip = make_clip(3, num_frames=9, pair=pair)
    row = pa.Table.from_pylist([to_row(clip)], schema=schema()).to_pylist()[0]
    back = from_row(row)
    for name in ("clip_id", "source", "speaker", "fps", "scores", "twin_of"):
        assert getattr(back, name) == getattr(clip, name), name
    for name in ("audio", "landmarks", "face_mask", "lip_mask", "occluder_mask", "opening"):
        np.testing.assert_array_equal(getattr(back, name), getattr(clip, name), err_msg=name)
    for name in ("frames", "reference") if pair else ("frames",):
        error = getattr(back, name).astype(float) - getattr(clip, name)
        assert (error**2).mean() < 10, "more than 38 dB"
    assert (back.reference is not None) == pair


def test_encoding_is_deterministic() -> None:
    assert to_row(make_clip(1)) == to_row(make_clip(1))


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="audio is float32.*must be float32"):
        make_clip(0, num_frames=5, audio=np.zeros(7, np.float32))
    with pytest.raises(ValueError, match="face_mask is uint8"):
        make_clip(0, num_frames=5, face_mask=np.zeros((5, 32, 32), np.uint8))


def test_a_damaged_row_names_its_clip() -> None:
    row = to_row(make_clip(0))
    with pytest.raises(UserError, match=f"clip {row['clip_id']}: damaged row"):
        from_row({**row, "frames": row["frames"][:100]})
    with pytest.raises(UserError, match="schema_version 99"):
        from_row({**row, "schema_version": 99})


def test_the_id_depends_on_provenance_pixels_and_shape() -> None:
    frames = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    ids = {
        clip_id_of("a", frames),
        clip_id_of("b", frames),
        clip_id_of("a", frames + 1),
        clip_id_of("a", frames.reshape(4, 2, 4, 3)),
        clip_id_of("a", frames, frames),
    }
    assert len(ids) == 5 and all(len(i) == 16 for i in ids)
    assert clip_id_of("a", frames) == clip_id_of("a", frames.copy(), None)
