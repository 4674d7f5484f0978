"""The sound of any file as mono samples at one rate."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from xdub.errors import UserError
from xdub.media.container import audio_stream, blocks_beyond_end, moving_stream, open_media, seconds
from xdub.media.damage import Damage, until_damage
from xdub.media.downmix import Downmix
from xdub.media.drift import follow
from xdub.media.stored_sound import StoredSound
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
    """Read the sound of an audio or video file, float32 mono [N] in [-1, 1] at ``rate`` Hz; see `store_audio`.

    Raises:
        UserError: as in `store_audio`.
    """
    return store_audio(path, rate)[:]


def store_audio(
    path: str | Path,
    rate: int = 16000,
    *,
    damage: Damage | None = None,
    on_block: Callable[[], object] | None = None,
) -> StoredSound:
    """Read the sound of an audio or video file into a temporary file, mono [N] in [-1, 1] at ``rate`` Hz.

    A player chooses the same track. Channels are averaged, except where that would lose speech (see
    ``Downmix``). In a video, sample 0 falls on the first video frame: a late sound track is padded and an early one
    cut, so that sample ``n * rate / fps`` belongs to frame n of ``read_video``. Missing parts become silence. Time
    stamps decide where samples belong, and jumps of them are closed (see ``TimeLine``).

    Args:
        damage: record of sound that cannot be decoded and becomes silence; without it such sound is an error.
        on_block: called after every decoded block of sound.

    Raises:
        UserError: the file cannot be opened, has no audio stream, or its samples are missing, NaN or infinite.
    """
    mix = Downmix(rate)
    sound = _read(path, rate, mix, damage, on_block)
    if sound.size == 0:
        raise UserError(f"{path}: its audio stream holds no samples (zero length)")
    if not np.isfinite(sound.peak):
        raise UserError(
            f"{path}: its sound holds samples that are not numbers (NaN or infinite); export it again"
        )
    if mix.again():
        sound = _read(path, rate, mix, damage, on_block)
        # A sum of channels is not louder than the loudest of them.
        sound.gain = min(1.0, mix.peak / max(sound.peak, 1e-9))
    sound.clipped = True
    return sound


def _read(
    path: str | Path, rate: int, mix: Downmix, damage: Damage | None, on_block: Callable[[], object] | None
) -> StoredSound:
    """Read the samples [N] once, on a time line that begins with the first picture."""
    if damage is not None:
        damage.packets = 0
    origin = _first_picture(path)
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise UserError(f"{path}: no audio stream in this file; use a file with sound")
        if damage is not None and (missing := blocks_beyond_end(stream, path)):
            damage.note(f"truncated: {missing}")
        picture = moving_stream(container)
        line = TimeLine(container, [stream] if picture is None else [picture, stream])
        frames = until_damage(_frames(line, stream, path, damage, on_block), damage)
        sound = _join(_runs(frames, line, rate, mix), rate, origin)
        end = _true_length(container, stream, rate, origin)
    if end is not None and 0 < sound.size - end <= PADDING * rate:
        sound.cut(end)
    return sound


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


def _frames(
    line: TimeLine,
    stream: AudioStream,
    path: str | Path,
    damage: Damage | None,
    on_block: Callable[[], object] | None,
) -> Iterator[AudioFrame]:
    """Yield the decoded frames; raise UserError for a sample rate or a number of channels that cannot be right."""
    for frame in cast("Iterator[AudioFrame]", line.decode(stream, damage)):
        if on_block is not None:
            on_block()
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
    sound: StoredSound = field(default_factory=StoredSound)
    """Mono samples at the rate of the output."""
    counted: array[float] = field(default_factory=lambda: array("d"))
    """Seconds of sound before each frame with a time stamp."""
    stamped: array[float] = field(default_factory=lambda: array("d"))
    """Time stamps of these frames."""
    length: float = 0.0
    """Seconds of sound so far."""

    def blocks(self, rate: int) -> Iterator[np.ndarray]:
        """Yield the samples in blocks [n], on the time stamps' line."""
        stamped, counted = np.array(self.stamped), np.array(self.counted)
        if stamped.size:
            stamped, counted = stamped - stamped[0], counted - counted[0]
        yield from follow(self.sound, rate, counted, stamped)
        self.sound.close()


def _runs(frames: Iterator[AudioFrame], line: TimeLine, rate: int, mix: Downmix) -> Iterator[_Run]:
    """Yield runs of sound in order."""
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
                yield run
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
        yield run


def _add(run: _Run, resampler: AudioResampler, frame: AudioFrame | None, mix: Downmix) -> None:
    """Resample a frame, or what the resampler still holds, and append it to the run."""
    for piece in resampler.resample(frame):
        if piece.samples:
            run.sound.append(mix.mono(piece))


def _join(runs: Iterator[_Run], rate: int, origin: float | None) -> StoredSound:
    """Join runs on one time line that begins at ``origin`` seconds, or with the first run if ``origin`` is None."""
    joined = StoredSound()
    # Index of the next sample on the line.
    cursor = 0
    for run in runs:
        if run.start is not None:
            origin = run.start if origin is None else origin
            cursor = round((run.start - origin) * rate)
        joined.pad(cursor - joined.size)
        for samples in run.blocks(rate):
            # Drop an overlap, and sound before the first video frame.
            joined.append(samples[max(0, joined.size - cursor) :])
            cursor += samples.size
    return joined
