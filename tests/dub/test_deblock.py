"""Deblocking removes the grid of a block codec and keeps the picture."""

from __future__ import annotations

import numpy as np

from xdub.dub.deblock import deblock


def _ramp() -> np.ndarray:
    y, x = np.mgrid[:40, :48]
    return np.stack([60 + 2.0 * x, 40 + 3.0 * y, 200 - x - y], -1)[None].astype(np.float32)


def test_a_smooth_picture_does_not_change() -> None:
    np.testing.assert_allclose(deblock(_ramp(), 8), _ramp(), atol=1e-3)


def test_steps_between_blocks_become_small() -> None:
    rng = np.random.default_rng(0)
    levels = np.kron(rng.normal(0, 5, (5, 6)), np.ones((8, 8))).astype(np.float32)
    blocky = _ramp() + levels[None, :, :, None]
    step_size = lambda frames: np.abs(np.diff(frames - _ramp(), axis=2)[:, :, 7::8]).mean()  # noqa: E731
    assert step_size(deblock(blocky, 8)) < 0.25 * step_size(blocky)


def test_an_edge_of_the_picture_survives_on_the_grid() -> None:
    edge = np.full((1, 32, 32, 3), 30, np.float32)
    edge[:, :, 16:] = 200
    np.testing.assert_allclose(deblock(edge, 8), edge, atol=1)
