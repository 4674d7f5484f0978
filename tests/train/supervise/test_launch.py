"""Failures of an attempt of training, without Ray's processes."""

from __future__ import annotations

from typing import cast

import pytest
import ray.exceptions

from xdub.train.rank import TrainJob
from xdub.train.supervise import launch


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (
            "The actor died because of an error raised in its creation task, ray::TrainController\n"
            "  import torch\nRuntimeError: imported from the current folder\n",
            "the training controller was lost (RayError: RuntimeError: imported from the current folder)",
        ),
        ("The node died.\nsecond line", "the training controller was lost (RayError)"),
    ],
)
def test_a_controller_that_failed_to_start_is_reported_with_its_error(
    text: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_function: object) -> None:
        raise ray.exceptions.RayError(text)

    monkeypatch.setattr(launch, "ensure_ray", lambda _cpus: False)
    monkeypatch.setattr(launch, "_in_thread", fail)
    assert launch._fit(cast("TrainJob", None), 1) == failure
