"""Rendered heads with exact landmarks, opening and masks."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def heads():
    """Two people of the renderer, 24 frames of 256 px each, with landmarks, opening and masks."""
    from xdub.render.clips import make_clips

    return [
        next(make_clips(5, [index], size=80, frames=24, full_size=256, crop_scale=1.0)) for index in (0, 12)
    ]
