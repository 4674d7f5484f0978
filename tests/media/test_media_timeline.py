"""Joined and damaged files: jumps of time stamps are closed, and picture and sound stay together."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from xdub.media import probe, read_audio, read_video

FLASH = 0.48
"""Time in seconds of the white frame and the click in each recording."""


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that encodes a recording whose frame at ``FLASH`` is white while a click sounds."""

    def encode(name: str = "a.ts", seconds: float = 1.0, offset: float = 0.0, **options) -> Path:
        times = options.get("times") or [n / 25 for n in range(round(25 * seconds))]
        pause_at, pause = options.get("pause", (1e9, 0.0))
        flash, codec = options.get("flash", FLASH), options.get("codec", "libx264")
        packets = []
        with av.open(str(tmp_path / name), "w") as container:
            video = container.add_stream(codec, rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            sound = container.add_stream("aac", rate=48000, layout="mono")
            for time in times:
                picture = np.full((48, 64, 3), 255 if abs(time - flash) < 0.02 else 60, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = round(1000 * (time + offset + pause * (time >= pause_at)))
                frame.time_base = Fraction(1, 1000)
                packets += video.encode(frame)
            packets += video.encode(None)
            samples = np.zeros((1, round(48000 * seconds)), np.float32)
            begin = round(48000 * flash)
            samples[0, begin : begin + 240] = 0.8 * np.sin(2 * np.pi * np.arange(240) / 48)
            for begin in range(0, samples.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, begin : begin + 1024]), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                time = begin / 48000
                frame.pts = begin + round(48000 * (offset + pause * (time >= pause_at)))
                packets += sound.encode(frame)
            packets += sound.encode(None)
            packets.sort(key=lambda packet: packet.dts * packet.time_base)
            for packet in packets:
                container.mux(packet)
        return tmp_path / name

    return encode


def joined(path: Path, *parts: Path) -> Path:
    """Concatenate files byte by byte, as ``cat`` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def flashes(path: Path) -> tuple[int, np.ndarray]:
    """Return the number of frames, and the times in seconds of the white ones."""
    white = [frame[24, 32].min() > 200 for frame in read_video(path)]
    return len(white), np.flatnonzero(white) / 25


def clicks(path: Path) -> np.ndarray:
    """Return the times in seconds at which a click begins."""
    loud = np.flatnonzero(np.abs(read_audio(path)) > 0.25)
    return loud[np.diff(loud, prepend=-1e6) > 1000] / 16000


@pytest.mark.parametrize("offsets", [(0, 600), (0, 0), (600, 0), (0, 30, 12), (0, 0.96), (0, 0.92, 1.8)])
def test_joined_recordings_follow_each_other_without_a_gap(recording, tmp_path, offsets):
    parts = [recording(f"{n}.ts", offset=offset) for n, offset in enumerate(offsets)]
    path = joined(tmp_path / "all.ts", *parts)
    frames, white = flashes(path)
    assert frames == 25 * len(offsets)
    assert white.tolist() == [FLASH + n for n in range(len(offsets))]
    assert clicks(path) == pytest.approx(white, abs=0.01)
    assert read_audio(path).size / 16000 == pytest.approx(len(offsets), abs=0.05)


def test_picture_and_sound_stay_together_over_a_hundred_joints(recording, tmp_path):
    parts = [recording("a.ts", 0.72), recording("b.ts", 0.72, offset=600)]
    path = joined(tmp_path / "all.ts", *[parts[n % 2] for n in range(100)])
    frames, white = flashes(path)
    assert frames == 1800 and len(white) == 100
    assert clicks(path) == pytest.approx(white, abs=0.01)


def test_a_recording_goes_on_after_an_inserted_one(recording, tmp_path):
    parts = [recording("a.ts"), recording("b.ts", offset=50), recording("c.ts", offset=1)]
    frames, white = flashes(joined(tmp_path / "all.ts", *parts))
    assert frames == 75 and white.tolist() == [FLASH, FLASH + 1, FLASH + 2]


def test_sound_that_steps_back_alone_goes_on_where_it_was(recording):
    path = recording("a.ts", 3.0, flash=2.0)
    for number in range(30, 40):
        _shift_time_stamp(path, 0xC0, number, -0.5)
    frames, white = flashes(path)
    assert frames == 75 and white.tolist() == [2.0]
    assert clicks(path) == pytest.approx(white, abs=0.05)


def test_a_pause_of_seconds_stays_and_a_pause_of_a_minute_is_closed(recording):
    for name, pause, seconds in (("a.mp4", 3, 5), ("b.mp4", 60, 2), ("c.mkv", 60, 2)):
        path = recording(name, 2.0, pause=(1.0, pause), flash=1.2)
        frames, white = flashes(path)
        assert frames == pytest.approx(25 * seconds, abs=1)
        assert clicks(path) == pytest.approx(white, abs=0.01)
        assert read_audio(path).size / 16000 == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("name", ["slides.mp4", "slides.mkv", "slides.ts"])
def test_sound_under_slides_keeps_its_time(recording, name):
    path = recording(name, 65, times=[0, 30, 60, 60.04], flash=60)
    frames, white = flashes(path)
    # The reader shows the frame that is nearest in time.
    assert frames == 1502 and white[0] == pytest.approx(45, abs=0.1)
    assert clicks(path) == pytest.approx([60.0], abs=0.01)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("stream", [0xE0, 0xC0])
@pytest.mark.parametrize("seconds", [3600, 8, -1])
def test_a_single_wrong_time_stamp_moves_nothing(recording, tmp_path, codec, stream, seconds):
    path = recording("a.ts", 3.0, flash=2.0, codec=codec)
    _shift_time_stamp(path, stream, 20, seconds)
    frames, white = flashes(path)
    assert frames == 75 and white.tolist() == [2.0]
    assert clicks(path) == pytest.approx([2.0], abs=0.01)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_the_duration_of_one_packet_decides_no_work(recording, tmp_path, kind):
    def last_for_hours(packet: av.Packet) -> None:
        if packet.stream.type == kind and packet.pts * packet.time_base > 0.9:
            packet.duration = round(36000 / packet.time_base)

    path = _remuxed(recording("a.mp4", codec="mpeg4"), tmp_path / "b.mp4", last_for_hours)
    frames, white = flashes(path)
    assert frames == pytest.approx(25, abs=1) and read_audio(path).size < 17000
    assert clicks(path) == pytest.approx(white, abs=0.01)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_one_stream_that_jumps_by_hours_takes_no_hours(recording, tmp_path, kind):
    def jump(packet: av.Packet) -> None:
        if packet.stream.type == kind and packet.dts * packet.time_base > 0.5:
            packet.pts, packet.dts = (t + round(36000 / packet.time_base) for t in (packet.pts, packet.dts))

    path = _remuxed(recording("a.mp4"), tmp_path / "b.mp4", jump)
    assert flashes(path)[0] < 60 and read_audio(path).size < 3 * 16000


def test_durations_in_the_header_change_nothing(recording):
    path = recording("a.mp4")
    data = path.read_bytes()
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        for ticks in (b"\x7f\xff\xff\xff", b"\0\0\0\x64"):
            at, lie = 0, bytearray(data)
            while (at := lie.find(box, at)) >= 0:
                lie[at + offset : at + offset + 4] = ticks
                at += 4
            path.write_bytes(lie)
            frames, white = flashes(path)
            assert frames == 25 and read_audio(path).size == pytest.approx(16000, abs=1600)
            assert clicks(path) == pytest.approx(white, abs=0.01)
            assert probe(path).width == 64


def test_a_pixel_aspect_in_the_header_decides_no_size(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(60000, 1)
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60, np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert next(read_video(path)).shape == (48, 64, 3)


def _remuxed(source: Path, target: Path, change: Callable[[av.Packet], None]) -> Path:
    """Copy all packets, after a change of each."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                change(packet)
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    return target


def _shift_time_stamp(path: Path, stream: int, number: int, seconds: float) -> None:
    """Add seconds to the time stamps of one PES packet of an MPEG transport stream."""
    data, count = bytearray(path.read_bytes()), 0
    for begin in range(0, len(data), 188):
        pes = begin + 4 + (1 + data[begin + 4] if data[begin + 3] & 0x20 else 0)
        if not data[begin + 1] & 0x40 or data[pes : pes + 4] != bytes([0, 0, 1, stream]):
            continue
        if count == number:
            for field in range({2: 1, 3: 2}[data[pes + 7] >> 6]):
                at = pes + 9 + 5 * field
                a, b, c, d, e = data[at : at + 5]
                ticks = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
                ticks += round(90000 * seconds)
                data[at : at + 5] = (
                    (a & 0xF0) | (ticks >> 30 & 7) << 1 | 1,
                    ticks >> 22 & 255,
                    (ticks >> 15 & 127) << 1 | 1,
                    ticks >> 7 & 255,
                    (ticks & 127) << 1 | 1,
                )
        count += 1
    assert count > number
    path.write_bytes(data)
