"""The actor around a worker hides the GPUs that it did not reserve."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import ray

from xdub.pool.worker import PoolActor


@pytest.mark.parametrize(("gpus", "visible"), [(0, ""), (0.0, ""), (0.1, "2"), (1, "2")])
def test_a_worker_that_reserved_no_gpu_sees_none(monkeypatch, gpus, visible):
    context = SimpleNamespace(get_node_id=lambda: "0123456789")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    loaded = []

    def factory(name: str) -> SimpleNamespace:
        loaded.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return SimpleNamespace(name=name)

    assert PoolActor().load(factory, {"name": "host"}, gpus=gpus) == "0123456789"
    assert loaded == [visible]
