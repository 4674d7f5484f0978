"""Layouts of a Wan's folder."""

from __future__ import annotations

from typing import Literal

Layout = Literal["original", "diffusers", "ours"]
"""``original``: Wan's and X-Dub's names. ``diffusers``: a `WanTransformer3DModel`. ``ours``: the original names with a
config of this project."""
