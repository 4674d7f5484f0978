"""Open media files, with a one-line error for every mistake that a user can make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from xdub.errors import UserError
from xdub.media.damage import Damage, reason_of

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

Track = TypeVar("Track", bound="av.stream.Stream")

STILL_FORMATS = ("image2", "_pipe")
"""Parts of the names of FFmpeg's formats for still images."""
REFUSED_FORMATS = {"hls", "dash", "imf", "concat", "sdp", "rtsp", "sap", "vobsub", "image2", "lavfi", "tty"}
"""FFmpeg's formats that are not opened.

Files of the first eight name other files or addresses, which FFmpeg would open. `image2` reads a name as a pattern,
`lavfi` reads a file as a filter graph, and `tty` draws any text as a picture.
"""
STATE_LENGTH = ("matroska", "avi", "flv", "asf", "mxf")
"""Parts of the names of FFmpeg's formats whose headers state the length of the recording."""
MOST_PIXELS = 1 << 26
"""Most pixels of a picture that are plausible: two of 8K."""


@contextmanager
def open_media(path: str | Path, **demuxer: str) -> Iterator[InputContainer]:
    """Open a media file for reading; decoder errors inside the block become a ``UserError`` that names the file.

    Args:
        demuxer: options of FFmpeg's reader of the container.

    Raises:
        UserError: the file is missing, a directory, unreadable, empty, not media, or corrupt.
    """
    import av

    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give a video or audio file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    try:
        options = {"format_whitelist": _formats(), "protocol_whitelist": "file", **demuxer}
        container = av.open(media_url(path), container_options=options, metadata_errors="replace")
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read it") from error
    except av.error.ArgumentError as error:
        problem = "not a media file itself but a text, or a playlist that names other files"
        raise UserError(f"{path}: {problem}; give a video or audio file") from error
    except (av.error.FFmpegError, ValueError) as error:
        problem = f"not a readable media file ({reason_of(error)})"
        raise UserError(f"{path}: {problem}; it is truncated, corrupt or of an unsupported format") from error
    try:
        with container:
            yield container
    except av.error.FFmpegError as error:
        problem = f"corrupt or unsupported data ({reason_of(error)})"
        raise UserError(f"{path}: {problem}; re-encode it or leave it out") from error


def media_url(path: str | Path) -> str:
    """Return a file's name for FFmpeg, which would read a name with a colon as an address."""
    return f"file:{path}"


@cache
def _formats() -> str:
    """Return the names of all formats that hold sound or picture themselves, separated by commas."""
    from av import formats_available
    from av.format import ContainerFormat

    names = set()
    for name in formats_available:
        with suppress(ValueError):  # a format that is only written
            names.update(ContainerFormat(name, "r").name.split(","))
    return ",".join(sorted(names - REFUSED_FORMATS))


def video_stream(container: InputContainer, path: str | Path, damage: Damage | None = None) -> VideoStream:
    """Return the video stream that a player shows; cover art does not count.

    Raises:
        UserError: the file has no video stream, is a still image, or is truncated (without a record of ``damage``).
    """
    if not _moving(container):
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise UserError(f"{path}: no video stream in this file (streams found: {kinds}); give a video")
    if any(mark in container.format.name for mark in STILL_FORMATS):
        raise UserError(f"{path}: is a still image; give a video")
    stream = moving_stream(container)
    if stream is None:
        raise UserError(f"{path}: its video codec is not supported; re-encode it as H.264")
    missing = blocks_beyond_end(stream, path)
    if missing and damage is None:
        raise UserError(f"{path}: the file is truncated ({missing}); copy it again")
    if missing and damage is not None:
        damage.note(f"truncated: {missing}")
        damage.stated = seconds(stream.duration or 0, stream)
    # A damaged header would decide the memory of a picture.
    stream.codec_context.options |= {"max_pixels": str(MOST_PIXELS)}
    return stream


def moving_stream(container: InputContainer) -> VideoStream | None:
    """Return the video stream that a player shows, None if there is none that can be decoded."""
    return _preferred(_moving(container))


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the audio stream that a player plays, None if there is none that can be decoded."""
    return _preferred(container.streams.audio)


def _moving(container: InputContainer) -> list[VideoStream]:
    """Return the video streams without cover art."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _preferred(streams: Iterable[Track]) -> Track | None:
    """Return the first stream that is flagged as default, else the first; commentary and the like come last."""
    from av.stream import Disposition

    special = Disposition.comment | Disposition.hearing_impaired | Disposition.visual_impaired
    special |= Disposition.descriptions | Disposition.dependent | Disposition.still_image

    def rank(stream: Track) -> tuple[bool, bool]:
        return bool(stream.disposition & special), not stream.disposition & Disposition.default

    # A stream without a context has a codec that is not supported.
    return min((s for s in streams if s.codec_context is not None), key=rank, default=None)


def seconds(ticks: int, stream: av.stream.Stream) -> float:
    """Convert a timestamp of a stream to seconds."""
    return float(ticks * stream.time_base) if stream.time_base is not None else 0.0


def stated_end(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the time in seconds at which a file ends by its header, None if the header has no length.

    Index and edit list of the mp4 family are checked
    by `video_stream`, and a transport stream has no header.
    """
    if not any(name in container.format.name for name in STATE_LENGTH):
        return None
    counted = stream.frames / float(stream.average_rate) if stream.frames and stream.average_rate else 0.0
    begin = (container.start_time or 0) / 1e6
    return begin + max(counted, (container.duration or 0) / 1e6)


def blocks_beyond_end(stream: av.stream.Stream, path: str | Path) -> str:
    """Return how many frames (or blocks of sound) of the index are beyond the end of the file; empty if none are.

    FFmpeg reports no error for a truncated file whose index comes first; decoding just ends early.
    """
    size = Path(path).stat().st_size
    entries = stream.index_entries
    missing = sum(1 for entry in entries if entry.pos + entry.size > size)
    unit = "frames" if stream.type == "video" else "blocks of sound"
    return f"{missing} of {len(entries)} {unit} are beyond its end" if missing else ""
