"""Keeps what a rank has no use for from being loaded: seconds of every start, and of every recovery.

On two cores DeepSpeed's and torch's optional parts took 5 of the 7 s between a worker's start and its first batch.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer


@contextmanager
def without(module: str) -> Generator[None]:
    """Makes an optional import fail. DeepSpeed's autotuner, which we don't use, would load MLflow."""
    before = sys.modules.get(module)
    sys.modules[module] = None  # ty: ignore[invalid-assignment]  # what the import system takes for "not there"
    try:
        yield
    finally:
        if before is None:
            del sys.modules[module]
        else:
            sys.modules[module] = before


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Generator[None]:
    """Another value for an attribute."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def leave_dynamo_out() -> None:
    """For ranks that compile nothing: torch loads its compiler (3 s) to keep it from compiling the optimizer.

    torch looks for the guarded function in an attribute of the plain one, and finds the plain one itself.
    """
    methods = (
        Optimizer.add_param_group,
        Optimizer.zero_grad,
        Optimizer.state_dict,
        Optimizer.load_state_dict,
    )
    for method in (*methods, torch.utils.checkpoint.checkpoint):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)  # noqa: B010


class AdamW(torch.optim.AdamW):
    """torch's, but its step does not load the compiler to tell it of a break in the graph."""

    _plain_step = staticmethod(inspect.unwrap(torch.optim.AdamW.step))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As in torch."""
        return self._plain_step(self, closure)
