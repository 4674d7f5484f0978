"""Pictures as a player shows them, from decoded frames: upright, with square pixels, of one size, in BT.709 SDR."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from xdub.media.colours import SdrConverter, conversion, matrix
from xdub.media.orientation import orientation
from xdub.media.probe import display_size, upright_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class Pictures:
    """Conversion of a stream's frames to pictures of one size: that of its first frame as a player shows it.

    Streams may change size, pixel aspect or rotation. A later frame is then scaled to fit, and black bars keep its
    shape, as in a player's window.
    """

    def __init__(self, stream: VideoStream, *, exact: bool) -> None:
        self._stream, self._exact = stream, exact
        self._size: tuple[int, int] | None = None
        self._coded_aspect: Fraction | None = None
        self._to_sdr = SdrConverter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Convert the next frame to uint8 RGB [H, W, 3]."""
        aspect, coded = self._stream.sample_aspect_ratio, self._stream.codec_context.sample_aspect_ratio
        if self._size is None:
            self._size, self._coded_aspect = display_size(frame, aspect), coded
        elif coded and self._coded_aspect and coded != self._coded_aspect:
            # The container only states the first aspect.
            aspect = coded
        width, height = display_size(frame, aspect)
        if (width, height) == self._size:
            return to_rgb(frame, upright_size(frame, aspect), exact=self._exact, to_sdr=self._to_sdr)
        scale = min(self._size[0] / width, self._size[1] / height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        stored = (height, width) if orientation(frame).transposed else (width, height)
        picture = np.zeros((self._size[1], self._size[0], 3), np.uint8)
        top, left = (self._size[1] - height) // 2, (self._size[0] - width) // 2
        picture[top : top + height, left : left + width] = to_rgb(
            frame, stored, exact=self._exact, to_sdr=self._to_sdr
        )
        return picture


def to_rgb(
    frame: VideoFrame,
    size: tuple[int, int] | None = None,
    *,
    exact: bool = True,
    to_sdr: SdrConverter | None = None,
) -> np.ndarray:
    """Convert to uint8 [H, W, 3] upright BT.709 SDR, by the frame's own colour matrix, range, gamut and transfer.

    Args:
        size: (width, height) before rotation; default: the stored size.
        to_sdr: a converter that keeps its table between frames.
    """
    from av.video.reformatter import Interpolation

    width, height = size or (frame.width, frame.height)
    needed = conversion(frame)
    rounding = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT if exact else Interpolation(0)
    converted = frame.reformat(
        width=width,
        height=height,
        # HDR in 8 bits would show bands.
        format="rgb24" if needed is None else "gbrp16le",
        src_colorspace=matrix(frame),
        src_color_range=frame.color_range or None,
        dst_color_range="JPEG",
        interpolation=Interpolation.BILINEAR | rounding,
        threads=1,
    )
    rgb = converted.to_ndarray() if needed is None else (to_sdr or SdrConverter())(converted, needed)
    # Rows of narrow frames are padded, so copy.
    return np.ascontiguousarray(orientation(frame).apply(rgb))
