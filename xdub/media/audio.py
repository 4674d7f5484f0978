"""The sound of any file as mono samples at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from xdub.errors import UserError
from xdub.media.container import audio_stream, moving_stream, open_media, seconds
from xdub.media.downmix import Downmix
from xdub.media.drift import follow
from xdub.media.timeline import TimeLine

if TYPE_CHECKING:
    from av import AudioResampler
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

GAP = 0.05
"""Largest jump of timestamps, in seconds, that counts as jitter; a larger jump is missing sound."""
JOINT_GAP, JOINT = 0.002, 0.2
"""Largest such jump near a joint, where blocks overlap or leave a gap, and the seconds that count as near."""
RATES = (1000, 1_000_000)
"""Sample rates in Hz that are plausible: at 1 Hz, a file of a megabyte would become a gigabyte."""
CHANNELS = 64
"""Largest number of channels that FFmpeg's resampler accepts."""
PADDING = 0.25
"""Most sound in seconds that an encoder adds to fill its last block."""


def read_audio(path: str | Path, rate: int = 16000) -> np.ndarray:
    """Read the sound of an audio or video file, float32 mono [N] in [-1, 1] at ``rate`` Hz.

    A player chooses the same track. Channels are averaged, except where that would lose speech (see
    ``Downmix``). In a video, sample 0 falls on the first video frame: a late sound track is padded and an early one
    cut, so that sample ``n * rate / fps`` belongs to frame n of ``read_video``. Missing parts become silence. Time
    stamps decide where samples belong, and jumps of them are closed (see ``TimeLine``).

    Raises:
        UserError: the file cannot be opened, has no audio stream, or its samples are missing, NaN or infinite.
    """
    mix = Downmix(rate)
    samples = _read(path, rate, mix)
    if samples.size == 0:
        raise UserError(f"{path}: its audio stream holds no samples (zero length)")
    if not np.isfinite(samples).all():
        raise UserError(
            f"{path}: its sound holds samples that are not numbers (NaN or infinite); export it again"
        )
    if mix.again():
        samples = _read(path, rate, mix)
        # A sum of channels is not louder than the loudest of them.
        samples *= min(1.0, mix.peak / max(float(np.abs(samples).max()), 1e-9))
    return np.clip(samples, -1.0, 1.0, out=samples)


def _read(path: str | Path, rate: int, mix: Downmix) -> np.ndarray:
    """Read the samples [N] once, on a time line that begins with the first picture."""
    origin = _first_picture(path)
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise UserError(f"{path}: no audio stream in this file; use a file with sound")
        picture = moving_stream(container)
        line = TimeLine(container, [stream] if picture is None else [picture, stream])
        samples = _join(_runs(_frames(line, stream, path), line, rate, mix), rate, origin)
        end = _true_length(container, stream, rate, origin)
    padded = end is not None and 0 < samples.size - end <= PADDING * rate
    return samples[:end] if padded else samples


def _first_picture(path: str | Path) -> float | None:
    """Return the time in seconds of the first frame of the video that can be decoded, None for a file without one."""
    with open_media(path) as container:
        picture, sound = moving_stream(container), audio_stream(container)
        if picture is None or sound is None:
            return None
        try:
            frame = next(TimeLine(container, [picture, sound]).decode(picture), None)
        except OSError:
            # The sound of a damaged video may still be readable.
            frame = None
        if frame is not None and frame.time is not None:
            return frame.time
        return seconds(picture.start_time or 0, picture)


def _true_length(
    container: InputContainer, stream: AudioStream, rate: int, origin: float | None
) -> int | None:
    """Return the number of samples up to the true end of the sound, None if it is unknown.

    AAC pads its last block. In the mp4 family the duration of the track excludes the padding.
    """
    if "mp4" not in container.format.name or not stream.duration:
        return None
    start = stream.start_time or 0
    late = 0.0 if origin is None else seconds(start, stream) - origin
    return max(0, round((late + seconds(stream.duration, stream)) * rate))


def _frames(line: TimeLine, stream: AudioStream, path: str | Path) -> Iterator[AudioFrame]:
    """Yield the decoded frames; raise UserError for a sample rate or a number of channels that cannot be right."""
    for frame in cast("Iterator[AudioFrame]", line.decode(stream)):
        if frame.samples == 0:
            continue
        if not RATES[0] <= frame.sample_rate <= RATES[1]:
            raise UserError(
                f"{path}: a sample rate of {frame.sample_rate} Hz in its header is not plausible; export it again"
            )
        if frame.layout.nb_channels > CHANNELS:
            raise UserError(
                f"{path}: {frame.layout.nb_channels} channels of sound are not supported; export at most {CHANNELS}"
            )
        yield frame


@dataclass
class _Run:
    """Sound without a gap."""

    start: float | None
    """Time of its first sample in seconds; None if it follows the run before."""
    parts: list[np.ndarray] = field(default_factory=list)
    """Mono samples at the rate of the output."""
    counted: list[float] = field(default_factory=list)
    """Seconds of sound before each frame with a time stamp."""
    stamped: list[float] = field(default_factory=list)
    """Time stamps of these frames."""
    length: float = 0.0
    """Seconds of sound so far."""

    def samples(self, rate: int) -> np.ndarray:
        """Return the samples [N] on the time stamps' line."""
        samples = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        self.parts.clear()
        if not self.counted:
            return samples
        stamped = np.array(self.stamped)
        return follow(samples, rate, np.array(self.counted) - self.counted[0], stamped - stamped[0])


def _runs(
    frames: Iterator[AudioFrame], line: TimeLine, rate: int, mix: Downmix
) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield runs of sound (start in seconds, samples [n]) in order; the start is None for one that follows directly."""
    from av import AudioResampler

    resampler: AudioResampler | None = None
    setup, expected = None, None
    run = _Run(None)
    for frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        near = frame.time is not None and line.joint is not None and abs(frame.time - line.joint) < JOINT
        slack = JOINT_GAP if near else GAP
        jump = expected is not None and frame.time is not None and abs(frame.time - expected) > slack
        if resampler is None or now != setup or jump:
            if resampler is not None:
                _add(run, resampler, None, mix)
                yield run.start, run.samples(rate)
            resampler, setup = AudioResampler(format="flt", layout=frame.layout.name, rate=rate), now
            run = _Run(frame.time if frame.time is not None else expected)
        begin = frame.time if frame.time is not None else (expected or 0.0)
        if frame.time is not None:
            run.counted.append(run.length)
            run.stamped.append(frame.time)
        duration = frame.samples / frame.sample_rate
        expected = begin + duration
        run.length += duration
        # Without a timestamp the resampler counts samples; `start` decides their position.
        frame.pts = None
        _add(run, resampler, frame, mix)
    if resampler is not None:
        _add(run, resampler, None, mix)
        yield run.start, run.samples(rate)


def _add(run: _Run, resampler: AudioResampler, frame: AudioFrame | None, mix: Downmix) -> None:
    """Resample a frame, or what the resampler still holds, and append it to the run."""
    run.parts += [mix.mono(piece) for piece in resampler.resample(frame) if piece.samples]


def _join(runs: Iterator[tuple[float | None, np.ndarray]], rate: int, origin: float | None) -> np.ndarray:
    """Join runs on one time line that begins at ``origin`` seconds, or with the first run if ``origin`` is None."""
    parts: list[np.ndarray] = []
    # Number of samples on the line so far, and index of the next piece's first sample.
    written = cursor = 0
    for start, samples in runs:
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
