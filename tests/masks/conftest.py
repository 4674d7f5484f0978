"""Rendered heads with the tracker's meshes in px of their crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from xdub.data.clip import Clip
from xdub.data.transforms import crop_mesh
from xdub.masks.face_shape import FaceViews
from xdub.perception.faces import FaceTracker

SIZE, FRAMES = 96, 45
"""Side of the crops in px, and frames of a clip."""


@dataclass(frozen=True, eq=False)
class Head:
    """A rendered clip, and what a finder of masks sees of it."""

    clip: Clip
    views: FaceViews


@pytest.fixture(scope="session")
def tracker() -> Iterator[FaceTracker]:
    with FaceTracker() as tracker:
        yield tracker


@pytest.fixture(scope="session")
def film(tracker) -> Callable[..., Head]:
    """Render a clip and track it."""

    def render(index: int, frames: int = FRAMES) -> Head:
        from xdub.render.clips import make_clips

        pair = next(make_clips(7, [index], size=SIZE, frames=frames, full_size=192))
        mesh = tracker.track(pair.full, keep_mesh=True).landmarks478
        assert mesh is not None
        clip = pair.clip
        views = FaceViews(
            frames=clip.frames, landmarks=clip.landmarks, mesh=crop_mesh(mesh, pair.boxes, SIZE), person=mesh
        )
        return Head(clip, views)

    return render


@pytest.fixture(scope="session")
def talkers(film) -> list[Head]:
    """Three people who speak."""
    return [film(index) for index in (0, 8, 28)]


@pytest.fixture(scope="session")
def turning(film) -> Head:
    """A person who turns from -60 to 60 degrees and back while speaking."""
    from xdub.render import clips

    draw = clips.draw_motion

    def turned(rng: np.random.Generator, frames: int, smile: float):
        angle = np.radians(60) * np.sin(np.linspace(0, 2 * np.pi, frames))
        turn = np.zeros((frames, 3, 3))
        turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1] = np.cos(angle), np.sin(angle), 1
        turn[:, 2, 0], turn[:, 2, 2] = -np.sin(angle), np.cos(angle)
        return replace(draw(rng, frames, smile), turn=turn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "draw_motion", turned)
        return film(80, frames=75)
