"""The sound of any file as mono samples at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdub.errors import UserError
from xdub.media.container import has_audio, open_media, seconds

if TYPE_CHECKING:
    from av import AudioResampler
    from av.audio.frame import AudioFrame
    from av.container import InputContainer

GAP = 0.05
"""Largest jump of timestamps, in seconds, that counts as jitter; a larger jump is missing sound."""


def read_audio(path: str | Path, rate: int = 16000) -> np.ndarray:
    """Read the sound of an audio or video file, float32 mono [N] in [-1, 1] at ``rate`` Hz.

    Channels are averaged. In a video, sample 0 falls on the first video frame: a late sound track is padded and an
    early one cut, so that sample ``n * rate / fps`` belongs to frame n of ``read_video``. Missing parts become silence.

    Raises:
        UserError: the file cannot be opened, has no audio stream, or its samples are missing, NaN or infinite.
    """
    with open_media(path) as container:
        if not has_audio(container):
            raise UserError(f"{path}: no audio stream in this file; use a file with sound")
        origin = _video_start(container)
        samples = _join(_mono(container, rate), rate, origin)
        samples = samples[: _true_length(container, rate, origin)]
    if samples.size == 0:
        raise UserError(f"{path}: its audio stream holds no samples (zero length)")
    if not np.isfinite(samples).all():
        raise UserError(
            f"{path}: its sound holds samples that are not numbers (NaN or infinite); export it again"
        )
    return np.clip(samples, -1.0, 1.0)


def _video_start(container: InputContainer) -> float | None:
    """Return the time of the first video frame in seconds, None for a file without video."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return seconds(stream.start_time or 0, stream)
    return None


def _true_length(container: InputContainer, rate: int, origin: float | None) -> int | None:
    """Return the number of samples up to the true end of the sound, None if it is unknown.

    AAC pads its last block. In the mp4 family the duration of the track excludes the padding.
    """
    stream = container.streams.audio[0]
    if "mp4" not in container.format.name or not stream.duration:
        return None
    start = stream.start_time or 0
    late = 0.0 if origin is None else seconds(start, stream) - origin
    return max(0, round((late + seconds(stream.duration, stream)) * rate))


def _mono(container: InputContainer, rate: int) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield pieces (start in seconds, samples [n]) in order; the start is None for a piece that follows directly."""
    from av import AudioResampler

    resampler: AudioResampler | None = None
    setup, expected = None, None
    for frame in container.decode(container.streams.audio[0]):
        if frame.samples == 0:
            continue
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        jump = expected is not None and frame.time is not None and abs(frame.time - expected) > GAP
        if resampler is None or now != setup or jump:
            if resampler is not None:
                yield from _pieces(resampler.resample(None), None)
            resampler, setup = AudioResampler(format="flt", layout=frame.layout.name, rate=rate), now
            start = frame.time if frame.time is not None else expected
        else:
            start = None
        begin = frame.time if frame.time is not None else (expected or 0.0)
        expected = begin + frame.samples / frame.sample_rate
        # Without a timestamp the resampler counts samples; `start` decides their position.
        frame.pts = None
        yield from _pieces(resampler.resample(frame), start)
    if resampler is not None:
        yield from _pieces(resampler.resample(None), None)


def _pieces(frames: list[AudioFrame], start: float | None) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield the samples of resampled frames; only the first piece has a start."""
    for piece in frames:
        if piece.samples:
            # The format is interleaved, because PyAV handles at most eight planes and reads beyond them.
            channels = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
            yield start, channels.mean(axis=1, dtype=np.float32)
            start = None


def _join(pieces: Iterator[tuple[float | None, np.ndarray]], rate: int, origin: float | None) -> np.ndarray:
    """Join pieces on one time line that begins at ``origin`` seconds, or with the first piece if ``origin`` is None."""
    parts: list[np.ndarray] = []
    # Number of samples on the line so far, and index of the next piece's first sample.
    written = cursor = 0
    for start, samples in pieces:
        if start is not None:
            origin = start if origin is None else origin
            cursor = round((start - origin) * rate)
        if cursor > written:
            parts.append(np.zeros(cursor - written, np.float32))
            written = cursor
        # Drop an overlap, and sound before the first video frame.
        fresh = samples[written - cursor :]
        cursor += samples.size
        written += fresh.size
        parts.append(fresh)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
