"""Rendered talking heads: exact audio, lips, masks and twins from an open avatar (paper B.3)."""

from __future__ import annotations

__all__ = ["RenderedPair", "make_clips", "render_full_clip", "render_dataset"]


def __getattr__(name: str) -> object:
    """Load the renderer only when one of its names is used."""
    if name == "render_dataset":
        from xdub.render.dataset import render_dataset

        return render_dataset
    if name in __all__:
        from xdub.render import clips

        return getattr(clips, name)
    raise AttributeError(f"module 'xdub.render' has no attribute {name!r}")
