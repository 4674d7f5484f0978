"""A rendered head that speaks, as the footage of a clip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xdub.data.clip import Clip
from xdub.render import RenderedPair
from xdub.screen.check import Footage


@pytest.fixture(scope="session")
def person() -> RenderedPair:
    """Clip and twin of one take, 60 frames of 64 px: the same motion and light with other speech."""
    from xdub.render.clips import make_clips

    return next(make_clips(11, [8], size=64, frames=60, full_size=192, crop_scale=0.9))


@pytest.fixture(scope="session")
def speaker(person) -> Clip:
    """The clip of `person`."""
    return person.clip


@pytest.fixture(scope="session")
def footage_of() -> Callable[..., Footage]:
    """Build footage of a clip, with its sound ``late`` by a number of frames and other pictures or sound if given."""

    def build(
        clip: Clip, *, frames: np.ndarray | None = None, sound: np.ndarray | None = None, late: int = 0
    ):
        sound = clip.sound if sound is None else sound
        moved = np.roll(sound, late * 640)
        return Footage(
            frames=clip.frames if frames is None else frames, landmarks=clip.landmarks, sound=moved
        )

    return build
