"""The whole demo with one command: render, train, make pairs, train again, dub, measure, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdub.demo.journey import run_demo as run_demo


def __getattr__(name: str) -> Any:
    if name == "run_demo":
        from xdub.demo.journey import run_demo

        return run_demo
    raise AttributeError(f"module 'xdub.demo' has no attribute {name!r}")
