"""The way a player turns and mirrors a stored picture: the display matrix of a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Orientation:
    """Steps from the stored picture to the displayed one, in this order."""

    transposed: bool = False
    """True: rows and columns change places."""
    mirrored: bool = False
    """True: left and right change places."""
    flipped: bool = False
    """True: top and bottom change places."""

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return a view of the stored picture [H, W, 3], turned and mirrored for display."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]

    @property
    def rotation(self) -> int:
        """Degrees, counter-clockwise, by which a player turns the picture, after it has mirrored it."""
        if self.transposed:
            return 90 if self.flipped else 270
        return 180 if self.flipped else 0


def orientation(frame: VideoFrame) -> Orientation:
    """Return the orientation that is closest to the frame's display matrix; the stored one without a matrix."""
    from av.sidedata.sidedata import Type

    # The container iterates over its items, not over keys.
    items = cast("Iterable[SideData]", frame.side_data)
    data = next((item for item in items if item.type == Type.DISPLAYMATRIX), None)
    if data is None or data.buffer_size < 36:
        return Orientation()
    # The matrix sends a column x and row y of the picture to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(np.float64)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirrored=bool(a < 0), flipped=bool(d < 0))
    return Orientation(transposed=True, mirrored=bool(c < 0), flipped=bool(b < 0))
