"""The queue of a pool: outcomes keep the order of the units, and an input that kills workers costs only itself."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from xdub.pool.queue import MAX_DEATHS, UnitQueue

Unit = list[str]


def queue(units, ahead: int = 4) -> UnitQueue[Unit, str]:
    """Return a queue of lists of names; the outcome of a list is its names, with a mark if its workers died."""
    return UnitQueue(
        units,
        ahead=ahead,
        failed=lambda unit, reason: f"failed {' '.join(unit)}: {reason}",
        split=lambda unit: [[name] for name in unit],
    )


def drain(work: UnitQueue[Unit, str], workers: int, bad: str = "", seed: int = 0) -> list[str]:
    """Process all units with workers that finish in random order and die of the input ``bad``."""
    draw, running, outcomes = random.Random(seed), [], []
    while not work.finished:
        while len(running) < workers and (taken := work.take()) is not None:
            running.append(taken)
        key, unit = running.pop(draw.randrange(len(running)))
        if bad and bad in unit:
            work.died(key, unit, "killed", guilty=True)
        else:
            work.finish(key, " ".join(unit))
        while work.ready:
            outcomes.append(work.next_outcome())
    assert not running and work.open == 0
    return outcomes


UNITS = [[f"{unit}{part}" for part in "abc"[: 1 + unit % 3]] for unit in range(11)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_outcomes_arrive_in_the_order_of_the_units_for_any_number_of_workers(workers: int) -> None:
    for seed in range(20):
        assert drain(queue(UNITS, ahead=4 * workers), workers, seed=seed) == [
            " ".join(unit) for unit in UNITS
        ]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_input_that_kills_its_workers_costs_only_itself_and_keeps_its_position(workers: int) -> None:
    outcomes = drain(queue(UNITS), workers, bad="5b")
    expected = [" ".join(unit) for unit in UNITS]
    expected[5:6] = ["5a", f"failed 5b: its worker died {MAX_DEATHS} times: killed", "5c"]
    assert outcomes == expected


def test_a_unit_whose_worker_died_once_is_repeated_whole() -> None:
    work = queue([["a", "b"]])
    key, unit = work.take() or pytest.fail("the queue is empty")
    work.died(key, unit, "killed", guilty=True)
    assert work.take() == (key, ["a", "b"])


def test_a_lost_machine_is_not_counted_as_a_death() -> None:
    work = queue([["a", "b"]])
    for _ in range(2 * MAX_DEATHS):
        key, unit = work.take() or pytest.fail("the queue is empty")
        work.died(key, unit, "the machine left", guilty=False)
    assert work.take() == ((0, 0), ["a", "b"])


def test_units_are_pulled_only_as_far_as_outcomes_may_wait() -> None:
    pulled: list[int] = []

    def units() -> Iterator[Unit]:
        for number in range(1000):
            pulled.append(number)
            yield [str(number)]

    work = queue(units(), ahead=4)
    assert len(pulled) == 4
    # The first unit is slow, so the others wait for it and no further unit is pulled.
    first = work.take()
    while (taken := work.take()) is not None:
        work.finish(taken[0], taken[1][0])
    assert len(pulled) == 4 and not work.ready and work.waiting > 0
    assert first is not None
    work.finish(first[0], "0")
    assert [work.next_outcome() for _ in range(4)] == list("0123") and len(pulled) == 8
    assert drain(work, 2)[-1] == "999"


def test_a_queue_without_units_is_finished_at_once() -> None:
    assert queue([]).finished and queue(iter(())).finished
    assert queue(UNITS).waiting == len(UNITS)
