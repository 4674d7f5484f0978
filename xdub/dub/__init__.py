"""Dubbing videos of any length with a trained model (paper 3.3, B.3): windows, joins, paste-back."""

from __future__ import annotations

__all__ = ["DubReport", "dub_video"]


def __getattr__(name: str) -> object:
    """Import the models' code when one of the names is first used."""
    if name in __all__:
        from xdub.dub import dub

        return getattr(dub, name)
    raise AttributeError(f"module 'xdub.dub' has no attribute {name!r}")
