"""Miniatures of all third-party networks: random weights in the true formats, to drive a recipe before a download."""

from __future__ import annotations

from xdub.miniature.write import Written, write_miniature

__all__ = ["Written", "write_miniature"]
