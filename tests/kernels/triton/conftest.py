"""The Triton kernels run here: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from xdub_kernels import dispatch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def device() -> str:
    pytest.importorskip("triton")
    if DEVICE == "cpu":
        assert dispatch.INTERPRETING, "TRITON_INTERPRET must be set before xdub_kernels is imported"
    return DEVICE


@pytest.fixture
def poisoned(monkeypatch):
    """New memory is full of NaN, so that what a kernel forgets to write, or reads too much, shows."""
    empty = torch.empty

    def nan_filled(*arguments, **options):
        x = empty(*arguments, **options)
        return x.fill_(float("nan")) if x.dtype.is_floating_point and x.device.type != "meta" else x

    monkeypatch.setattr(torch, "empty", nan_filled)
