"""Fixtures for the Triton kernels, which run on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from xdub_kernels import dispatch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def device() -> str:
    """Device of the tests; skips them without Triton."""
    pytest.importorskip("triton")
    if DEVICE == "cpu":
        assert dispatch.INTERPRETING, "TRITON_INTERPRET must be set before xdub_kernels is imported"
    return DEVICE


@pytest.fixture
def poisoned(monkeypatch):
    """Fill new memory with NaN, so that an element that is not written, or read out of bounds, fails the test."""
    empty = torch.empty

    def nan_filled(*arguments, **options):
        x = empty(*arguments, **options)
        return x.fill_(float("nan")) if x.dtype.is_floating_point and x.device.type != "meta" else x

    monkeypatch.setattr(torch, "empty", nan_filled)
