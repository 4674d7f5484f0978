"""Sound of any file as mono samples at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdub.errors import UserError
from xdub.media.container import has_audio, open_media

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer

GAP = 0.05  # seconds; smaller jumps of timestamps are jitter, larger ones are missing sound


def read_audio(path: str | Path, rate: int = 16000) -> np.ndarray:
    """Sound of an audio or video file, float32 mono [N] in [-1, 1] at ``rate`` Hz.

    Channels are averaged. In a video, sample 0 falls on the first video frame (a late or early sound track
    is padded or cut), so that sample ``n * rate / fps`` belongs to frame n of ``read_video``. Missing
    stretches become silence.

    Raises:
        UserError: cannot be opened, has no audio stream, or the stream holds no samples or such that are no numbers.
    """
    with open_media(path) as container:
        if not has_audio(container):
            raise UserError(f"{path}: no audio stream in this file; give one with sound")
        origin = _video_start(container)
        samples = _place(_mono(container, rate), rate, origin)
        samples = samples[: _true_length(container, rate, origin)]
    if samples.size == 0:
        raise UserError(f"{path}: its audio stream holds no samples (zero length)")
    if not np.isfinite(samples).all():
        raise UserError(
            f"{path}: its sound holds samples that are no numbers (NaN or infinite); export it again"
        )
    return np.clip(samples, -1.0, 1.0)


def _video_start(container: InputContainer) -> float | None:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
    return None


def _true_length(container: InputContainer, rate: int, origin: float | None) -> int | None:
    # AAC pads its last block; in the mp4 family the track's duration tells where the sound really ends.
    stream = container.streams.audio[0]
    if "mp4" not in container.format.name or not stream.duration:
        return None
    start = stream.start_time or 0
    late = 0.0 if origin is None else float(start * stream.time_base) - origin
    return max(0, round((late + float(stream.duration * stream.time_base)) * rate))


def _mono(container: InputContainer, rate: int) -> Iterator[tuple[float | None, np.ndarray]]:
    """(start in seconds or None for "goes on", samples [n]) pieces in order."""
    from av import AudioResampler

    resampler, setup, expected = None, None, None
    for frame in container.decode(container.streams.audio[0]):
        if frame.samples == 0:
            continue
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        jump = expected is not None and frame.time is not None and abs(frame.time - expected) > GAP
        if now != setup or jump:
            if resampler is not None:
                yield from _pieces(resampler.resample(None), None)
            resampler, setup = AudioResampler(format="flt", layout=frame.layout.name, rate=rate), now
            start = frame.time if frame.time is not None else expected
        else:
            start = None
        begin = frame.time if frame.time is not None else (expected or 0.0)
        expected = begin + frame.samples / frame.sample_rate
        frame.pts = None  # the resampler then counts samples; where they lie is decided by `start`
        yield from _pieces(resampler.resample(frame), start)
    if resampler is not None:
        yield from _pieces(resampler.resample(None), None)


def _pieces(frames: list[AudioFrame], start: float | None) -> Iterator[tuple[float | None, np.ndarray]]:
    for piece in frames:
        if piece.samples:
            # Interleaved: of planes PyAV sees eight, and reads beyond them.
            channels = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
            yield start, channels.mean(axis=1, dtype=np.float32)
            start = None


def _place(pieces: Iterator[tuple[float | None, np.ndarray]], rate: int, origin: float | None) -> np.ndarray:
    """Join pieces on one time line that begins at ``origin`` (None: at the first piece)."""
    parts: list[np.ndarray] = []
    written = cursor = 0  # samples on the line so far; where the next piece begins
    for start, samples in pieces:
        if start is not None:
            origin = start if origin is None else origin
            cursor = round((start - origin) * rate)
        if cursor > written:
            parts.append(np.zeros(cursor - written, np.float32))
            written = cursor
        fresh = samples[written - cursor :]  # drops an overlap, and sound before the first video frame
        cursor += samples.size
        written += fresh.size
        parts.append(fresh)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
