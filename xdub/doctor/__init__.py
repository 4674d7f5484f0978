"""Rehearsal of a recipe on one machine: every network loads, fits the others, and takes one step of every kind."""

from __future__ import annotations

from xdub.doctor.rows import Row

__all__ = ["Row"]
