"""Short clips as bytes in memory: near-lossless H.264 with full chroma; equal clips have equal bytes."""

from __future__ import annotations

import io

import numpy as np

from xdub.errors import UserError
from xdub.media.pictures import to_rgb
from xdub.media.writer import REPEATABLE, to_yuv


def encode_clip_bytes(frames: np.ndarray, crf: int = 6, fps: int = 25) -> bytes:
    """Encode uint8 RGB [F, H, W, 3] as mp4 (H.264, yuv444p), on one thread so that equal input has equal bytes."""
    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[0] == 0:
        raise ValueError(f"frames: expected uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream(
            "libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast", **REPEATABLE}
        )
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv444p"
        context = video.codec_context
        context.thread_count = 1
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
        for n, frame in enumerate(frames):
            picture = to_yuv(frame, "yuv444p")
            picture.pts = n
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return buffer.getvalue()


def decode_clip_bytes(data: bytes) -> np.ndarray:
    """Decode the bytes of ``encode_clip_bytes`` to uint8 RGB [F, H, W, 3].

    Raises:
        UserError: the bytes are damaged or truncated.
    """
    import av

    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            expected = stream.frames
            frames = [to_rgb(frame) for frame in container.decode(stream)]
    except (av.error.FFmpegError, IndexError) as error:
        raise UserError(f"clip bytes ({len(data)} B) are corrupt: {error}; rebuild the shard") from error
    if len(frames) != expected:
        raise UserError(f"clip bytes are truncated ({len(frames)} of {expected} frames); rebuild the shard")
    return np.stack(frames)
