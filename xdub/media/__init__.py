"""Video and audio files: the only package that opens, decodes, resamples, encodes or muxes them (with PyAV).

PyAV is imported by the first call, not by the import of this package.
"""

from __future__ import annotations

from xdub.media.audio import read_audio
from xdub.media.clip_bytes import decode_clip_bytes, encode_clip_bytes
from xdub.media.probe import VideoInfo, count_frames, probe
from xdub.media.reader import read_frames, read_video
from xdub.media.writer import write_video

__all__ = [
    "VideoInfo",
    "count_frames",
    "decode_clip_bytes",
    "encode_clip_bytes",
    "probe",
    "read_audio",
    "read_frames",
    "read_video",
    "write_video",
]
