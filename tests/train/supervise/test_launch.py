"""Which failures of a worker group are worth another attempt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from xdub.errors import UserError
from xdub.train.supervise.failures import judge


def failed(*causes: Exception) -> SimpleNamespace:
    return SimpleNamespace(worker_failures=dict(enumerate(causes)))


def test_data_that_stood_still_is_tried_again() -> None:
    from ray.data.exceptions import ExecutionTimeoutError

    assert "no batch was made" in judge(failed(ExecutionTimeoutError("no progress for 302s")))


def test_the_worker_that_died_is_named_and_not_the_peer_that_noticed() -> None:
    from ray.exceptions import RayError

    noticed = RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer")
    assert judge(failed(noticed, RayError("died"))) == "lost worker 1"


def test_our_own_mistakes_and_the_users_are_not_tried_again() -> None:
    with pytest.raises(RuntimeError, match="worker 0 failed:\nshapes differ"):
        judge(failed(ValueError("shapes differ")))
    with pytest.raises(UserError, match="^lower train.lr$"):
        judge(failed(UserError("lower train.lr")))
