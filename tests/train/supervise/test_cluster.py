"""The number of workers of a run, and the reasons to restart it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.train.supervise import cluster
from xdub.train.supervise.cluster import choose_workers, reason_to_restart


def train(workers: int, least: int | None, global_batch: int = 64) -> SimpleNamespace:
    return SimpleNamespace(workers=workers, min_workers=least, global_batch=global_batch, sequence_parallel=1)


@given(
    workers=st.integers(1, 40),
    least=st.none() | st.integers(1, 40),
    available=st.integers(0, 80),
    parts=st.integers(1, 4),
)
def test_a_run_gets_the_most_workers_that_fit_and_divide_the_batch(workers, least, available, parts) -> None:
    cfg = train(workers, least, workers * parts)
    allowed = range(least or workers, workers + 1)
    fitting = [n for n in allowed if n <= available and cfg.global_batch % n == 0]
    assert choose_workers(cfg, available) == max(fitting, default=None)


def test_a_run_without_min_workers_gets_all_workers_or_none() -> None:
    assert choose_workers(train(4, None), 4) == 4
    assert choose_workers(train(4, None), 3) is None
    assert choose_workers(train(4, 1), 3) == 2, "three do not divide 64"


@pytest.mark.parametrize(
    ("leaving", "capacity", "expected"),
    [
        (set(), 2, None),
        ({"b"}, 1, "1 of its machines will be reclaimed"),
        ({"elsewhere"}, 2, None),
        (set(), 4, "there is room for 4 workers now, not 2"),
        (set(), 3, None),  # three do not divide the batch
    ],
)
def test_a_healthy_attempt_is_restarted_only_for_a_reason(
    leaving, capacity, expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "draining_nodes", lambda: leaving)
    monkeypatch.setattr(cluster, "capacity", lambda train: capacity)
    assert reason_to_restart(train(4, 1), 2, ["a", "b"]) == expected


@pytest.mark.parametrize(
    ("machines", "resource", "gpu", "expected"),
    [
        ([{"CPU": 4}], None, False, 3),  # one CPU remains for the data
        ([{"CPU": 4}, {"CPU": 2}], None, False, 5),
        ([{"CPU": 96, "GPU": 8}, {"CPU": 2}], None, True, 8),
        ([{"CPU": 96, "GPU": 8, "train": 8}, {"CPU": 8, "GPU": 1, "pairgen": 1}], "train", True, 8),
        ([{"CPU": 8, "GPU": 1, "pairgen": 1}], "train", True, 0),
        ([], None, True, 0),
    ],
)
def test_workers_are_counted_where_they_may_run(
    machines, resource, gpu, expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "use_gpu", lambda: gpu)
    assert cluster._fit_into(machines, SimpleNamespace(resource=resource)) == expected
