"""The order of samples: every id once an epoch, the same global batches for any number of workers and any cursor."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.data.manifest import Manifest, Shard
from xdub.data.manifest_files import assign_speakers
from xdub.data.sample_order import SampleOrder, micro_batches
from xdub.errors import UserError
from xdub.files.storage import locate


def manifest(rows: list[int], num_frames: int = 9, name: str = "a") -> Manifest:
    total = sum(rows)
    return Manifest(
        folder=Path(name),
        kind="clips",
        recipe=None,
        shards=tuple(
            Shard(file=f"shard-{i:05d}.parquet", rows=n, bytes=1, sha256=f"{name}{i}")
            for i, n in enumerate(rows)
        ),
        ids=tuple(f"{name}{i}" for i in range(total)),
        num_frames=(num_frames,) * total,
        speakers=(name,) * total,
    )


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(rows=sizes, seed=st.integers(0, 5), together=st.integers(1, 4))
def test_every_id_occurs_exactly_once_an_epoch(rows: list[int], seed: int, together: int) -> None:
    data = manifest(rows)
    order = SampleOrder([data, manifest([2, 1], name="b")], window=9, seed=seed, shards_together=together)
    n = len(order)
    for epoch in range(3):
        refs = [order.at(p) for p in range(epoch * n, (epoch + 1) * n)]
        assert {e for e, _ in refs} == {epoch}
        assert sorted(order.clip_id(ref) for _, ref in refs) == sorted([*data.ids, "b0", "b1", "b2"])


def test_the_digest_changes_with_the_held_out_clips_of_renamed_speakers(tmp_path: Path) -> None:
    speakers = [f"s{row // 3}" for row in range(24)]
    data = replace(manifest([6] * 4), folder=tmp_path, speakers=speakers)

    def order(data: Manifest, held_out: float = 0.2) -> SampleOrder:
        return SampleOrder([data], window=9, seed=0, held_out=held_out)

    before, without = order(data), order(data, 0).digest
    digest = before.digest
    renamed = [f"speaker {row % 5}" for row in range(24)]
    assign_speakers(locate(tmp_path), data.ids, renamed)
    after = order(replace(data, speakers=renamed))
    assert after.held_out_rows != before.held_out_rows and after.digest != digest
    assert order(replace(data, speakers=renamed)).digest == after.digest
    assert order(replace(data, speakers=renamed), 0).digest == without


def test_order_changes_with_epoch_and_seed_and_stays_within_few_shards() -> None:
    def rows(seed: int, epoch: int) -> list:
        order = SampleOrder([manifest([10] * 20)], window=9, seed=seed, shards_together=4)
        return [order.at(epoch * 200 + p)[1].row for p in range(200)]

    assert rows(0, 0) == rows(0, 0)
    assert rows(0, 0) != rows(0, 1) != rows(1, 1)
    for first in range(0, 200, 40):
        assert len({row // 10 for row in rows(0, 0)[first : first + 40]}) == 4


@settings(max_examples=50, deadline=None)
@given(cursor=st.integers(0, 1000), per_rank=st.integers(1, 4), steps=st.integers(1, 3))
def test_global_batches_are_the_same_for_1_2_and_4_workers_and_any_micro_batch(
    cursor: int, per_rank: int, steps: int
) -> None:
    size = 4 * per_rank
    for world in (1, 2, 4):
        for micro in (1, size // world):
            count = steps * size // world // micro
            got = [
                [p for batch in islice(batches, count) for p in batch]
                for batches in (
                    micro_batches(cursor, global_batch=size, micro_batch=micro, rank=r, world_size=world)
                    for r in range(world)
                )
            ]
            share = size // world
            merged = [
                p for step in range(steps) for rank in got for p in rank[step * share : (step + 1) * share]
            ]
            assert merged == list(range(cursor, cursor + steps * size))


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="global_batch=6 is not divisible"):
        next(micro_batches(0, global_batch=6, micro_batch=2, world_size=2))


def test_short_clips_are_skipped() -> None:
    order = SampleOrder([manifest([3]), manifest([2], num_frames=5, name="b")], window=9, seed=0)
    assert len(order) == 3 and order.too_short == 2
    with pytest.raises(UserError, match="none of 3 clips has 13 frames"):
        SampleOrder([manifest([3])], window=13, seed=0)


def test_the_digest_depends_on_data_seed_and_window() -> None:
    digests = {
        SampleOrder([manifest(rows, name=name)], window=window, seed=seed).digest
        for rows, name, window, seed in [
            ([3], "a", 9, 0),
            ([3], "b", 9, 0),
            ([3], "a", 5, 0),
            ([3], "a", 9, 1),
        ]
    }
    assert len(digests) == 4


@pytest.mark.parametrize(("held_out", "digest"), [(0.0, "0869dbd7e48bab5e"), (0.3, "0a98b571edd868ee")])
def test_the_order_is_that_of_earlier_versions(held_out: float, digest: str) -> None:
    """Training states store a position in the order, so it must not change."""
    rows = [1] * 7 + [9] * 30
    data = manifest(rows)
    random = np.random.default_rng(0)
    frames, speakers = random.integers(5, 15, sum(rows)), random.integers(0, 12, sum(rows))
    data = replace(data, num_frames=frames.tolist(), speakers=[f"s{number}" for number in speakers])
    order = SampleOrder([data, manifest([4, 1], name="b")], window=9, seed=3, held_out=held_out)
    refs = [order.at(position) for position in range(2 * len(order))]
    text = repr([(epoch, ref.dataset, ref.row) for epoch, ref in refs]) + order.digest
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
