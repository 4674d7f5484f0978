"""The size of a pool: a number is an upper bound, and a range keeps its bounds."""

from __future__ import annotations

import pytest

from xdub.cli.options import parallel
from xdub.errors import UserError
from xdub.pool import PoolState, Workers, pool_size
from xdub.speakers.grouping import pool_of


def test_a_number_of_workers_is_an_upper_bound_and_one_runs_without_ray() -> None:
    assert parallel(None) is None and parallel("3") == 3
    assert pool_size(3, units=2).most == 2 and pool_size(3, units=9).most == 3
    assert pool_size(None, units=1) == Workers(least=0, most=1, cpus=1, gpus=0)
    with pytest.raises(UserError, match="workers=0"):
        parallel("0")


def test_a_range_keeps_its_bounds_and_a_worker_the_default_of_gpus() -> None:
    workers = parallel("0:8")
    assert isinstance(workers, Workers)
    assert pool_size(workers, units=1, gpus=0) == Workers(least=0, most=8, cpus=1, gpus=0)
    assert pool_size(workers, units=1, gpus=None).gpus is None
    assert pool_size(Workers(most=2, gpus=0.5), units=1, gpus=0).gpus == 0.5


def test_workers_of_small_networks_share_a_gpu_if_there_is_any() -> None:
    speakers = pool_of(Workers.parse("0:8"))
    assert (speakers.gpus_on(4), speakers.gpus_on(0)) == (0.1, 0)
    assert (Workers().gpus_on(4), Workers(gpus=0).gpus_on(4), Workers().gpus_on(0)) == (1, 0, 0)
    assert pool_of(3).most == 3


def test_the_state_of_a_pool_is_one_line_and_empty_without_a_worker() -> None:
    assert str(PoolState(queue=3)) == ""
    state = PoolState(ready=3, busy=2, starting=1, queue=20, lost=4)
    assert str(state) == "3 workers, 2 busy, 1 starting, 4 lost, 20 units wait"
