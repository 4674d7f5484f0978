"""Every kind of file keeps its times: frames within half a frame, and the beep with the flash within 10 ms."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from xdub.media import probe, read_frames, read_video
from xdub.media.testing import FLASH, TestFilm, read_timing, write_test_film

BROADCAST = {"codec": "mpeg2video", "audio_codec": "mp2", "size": (352, 288)}
LOSSLESS = {"codec": "ffv1", "audio_codec": "flac"}
STEPS = np.random.default_rng(0).choice([1 / 60, 1 / 30, 1 / 15, 0.1], 60)
VARIABLE = [round(float(time), 4) for time in np.cumsum(STEPS) - STEPS[0] if time < 2.4]

FILMS = {
    **{f"{fps} fps.mp4": TestFilm(fps=fps) for fps in (12, 15, 24, 30, 48, 50, 60, 90, 120)},
    **{f"{n}000 over 1001 fps.mp4": TestFilm(fps=Fraction(n * 1000, 1001)) for n in (24, 30, 60)},
    "variable rate.mp4": TestFilm(times=VARIABLE),
    "variable rate.mkv": TestFilm(times=VARIABLE),
    "variable rate.webm": TestFilm(times=VARIABLE, codec="libvpx-vp9", audio_codec="libopus"),
    "10 bit.mp4": TestFilm(pixel_format="yuv420p10le"),
    "4:2:2 10 bit.mov": TestFilm(codec="prores_ks", pixel_format="yuv422p10le", audio_codec="pcm_s16le"),
    "4:4:4.mp4": TestFilm(pixel_format="yuv444p"),
    "12 bit.mkv": TestFilm(pixel_format="yuv420p12le", **LOSSLESS),
    "alpha.mkv": TestFilm(pixel_format="yuva420p", **LOSSLESS),
    "rgb.mov": TestFilm(codec="qtrle", pixel_format="rgb24", audio_codec="pcm_s16le"),
    "grey.mkv": TestFilm(pixel_format="gray16le", **LOSSLESS),
    "odd.webm": TestFilm(size=(161, 97), codec="libvpx-vp9", audio_codec="libopus"),
    "odd and tall.mkv": TestFilm(size=(63, 127), **LOSSLESS),
    "camera.mxf": TestFilm(**BROADCAST | {"audio_codec": "pcm_s16le"}),
    "disc.vob": TestFilm(**BROADCAST | {"audio_codec": "ac3"}),
    "telephone.3gp": TestFilm(codec="h263", size=(352, 288)),
    "fragments.mp4": TestFilm(header={"movflags": "frag_keyframe+empty_moov"}, options={"g": "12"}),
    "late start.ts": TestFilm(start=3.3),
    "early start.mkv": TestFilm(start=-0.5),
    "late sound.mp4": TestFilm(sound=(0.3, 2.4)),
    "late sound.mkv": TestFilm(sound=(0.8, 2.4)),
    "early sound.ts": TestFilm(sound=(-0.3, 2.4)),
    "long sound.mp4": TestFilm(sound=(0.0, 3.0)),
    "short sound.mp4": TestFilm(sound=(0.0, 1.6)),
}
"""Film of each file name."""


@pytest.mark.parametrize("name", FILMS)
def test_the_times_of_a_film_survive_reading(name, tmp_path):
    film = FILMS[name]
    path = write_test_film(tmp_path / name, film)
    timing = read_timing(path)
    times = np.asarray(film.times or np.arange(round(film.seconds * film.fps)) / float(film.fps))
    moments = np.arange(len(timing.frames)) / 25
    distances = np.abs(times[None] - moments[:, None])
    inside = moments <= times[-1]
    # Each frame shows the nearest picture; the position of the edge is exact to 8 ms.
    assert np.all(np.abs(timing.frames - moments)[inside] <= distances.min(axis=1)[inside] + 0.008)
    assert abs(len(timing.frames) - 60) <= 3
    lit = (times >= FLASH - 1e-6)[distances.argmin(axis=1)]
    assert abs(timing.flash - moments[lit][0]) <= 0.04 + 1e-6
    assert abs(timing.beep - FLASH) <= 0.01
    assert film.sound is not None and timing.sound == pytest.approx(film.sound[1], abs=0.03)


@pytest.mark.parametrize("first", ["top", "bottom"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_interlaced_pictures_show_one_moment(codec, first, tmp_path):
    options = {"x264-params": "tff=1"} if codec == "libx264" else {"flags": "+ildct+ilme"}
    kinds = BROADCAST | {"codec": codec, "options": options}
    path = write_test_film(tmp_path / "a.ts", TestFilm(fields=first, **kinds))
    timing = read_timing(path)
    moments = np.arange(60) / 25
    # The fields are 20 ms apart, and a mixture of both would be 10 ms late.
    assert np.abs(timing.frames - moments).max() < 0.006 and abs(timing.beep - FLASH) < 0.01
    frame = list(read_video(path, max_frames=31))[30][20:120].astype(int)
    assert np.abs(np.diff(frame, axis=0)).max() < 60


@pytest.mark.parametrize("cut", [0.43, 0.49, 0.5, 0.57])
def test_a_cut_between_two_frames_moves_neither_picture_nor_sound(cut, tmp_path):
    path = write_test_film(tmp_path / "cut.mp4", TestFilm(start=-cut))
    timing = read_timing(path)
    moments = cut + np.arange(len(timing.frames)) / 25
    late = timing.frames - moments
    assert np.abs(late[1:]).max() <= 0.0245 and abs(late[0]) <= 0.04
    assert abs(timing.flash - (FLASH - cut)) <= 0.02 + 1e-6
    assert abs(timing.beep - (FLASH - cut)) <= 0.002


@pytest.mark.parametrize("edits", [[(0.0, 0.6), (1.0, 1.4)], [(0.4, 1.6)], [(-1, 0.4), (0.4, 1.6)]])
def test_edits_of_a_file_are_played_in_order(edits, tmp_path):
    path = write_test_film(tmp_path / "a.mov", TestFilm(options={"bf": "0"}, audio_codec="pcm_s16le"))
    _set_edits(path, edits)
    timing = read_timing(path)
    truth = np.concatenate(
        [start + np.arange(round(25 * length)) / 25 for start, length in edits if start >= 0]
    )
    assert np.abs(timing.frames - truth[: len(timing.frames)]).max() < 0.008
    assert abs(len(timing.frames) - len(truth)) <= 1
    assert timing.beep == pytest.approx(timing.flash, abs=0.01)


@pytest.mark.parametrize("mirror", [(True, False), (False, True)])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_mirrored_pictures_are_shown_as_a_player_shows_them(rotation, mirror, media):
    path = media.video("a.mp4", times=[0.0, 0.04])
    straight = read_frames(path)[0]
    with av.open(str(path)) as old, av.open(str(media.folder / "b.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.set_display_rotation(rotation, *mirror)
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    horizontal, vertical = mirror
    expected = np.rot90(straight, rotation // 90)
    expected = expected[::-1] if vertical else expected
    expected = expected[:, ::-1] if horizontal else expected
    frame = read_frames(media.folder / "b.mp4")[0]
    assert frame.shape == expected.shape and np.abs(frame.astype(int) - expected).max() <= 2
    assert (probe(media.folder / "b.mp4").height, probe(media.folder / "b.mp4").width) == frame.shape[:2]


def colours(number: int, *, full: bool, name: str, folder: Path) -> np.ndarray:
    """Return the colours [4, 3] that are read from a film with four patches in a colour matrix and range."""
    patches = np.zeros((96, 160, 3), np.uint8)
    patches[:48, :80], patches[:48, 80:] = PATCHES[0], PATCHES[1]
    patches[48:, :80], patches[48:, 80:] = PATCHES[2], PATCHES[3]

    class Patches(TestFilm):
        def picture(self, time: float) -> np.ndarray:
            return patches

    film = Patches(
        seconds=0.2, matrix=number, full_range=full, pixel_format="yuv444p", sound=None, options={"crf": "1"}
    )
    frame = read_frames(write_test_film(folder / name, film))[2]
    return np.stack([frame[y, x] for y, x in ((24, 40), (24, 120), (72, 40), (72, 120))]).astype(int)


PATCHES = [(200, 40, 40), (40, 180, 60), (50, 60, 210), (235, 16, 128)]
"""Colours of the four patches."""


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("number", [0, 1, 6], ids=["untagged", "bt709", "bt601"])
def test_colours_are_read_by_their_matrix_and_range(number, full, tmp_path):
    assert np.abs(colours(number, full=full, name="a.mkv", folder=tmp_path) - PATCHES).max() <= 3


def _set_edits(path: Path, edits: list[tuple[float, float]]) -> None:
    """Replace the edit list of each track by (start, length) in seconds; a start of -1 is an empty edit.

    The index lies behind the pictures, so its size may change.
    """
    data = path.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")

    def rebuilt(begin: int, end: int, scale: int, ticks: int) -> bytes:
        parts = []
        while begin < end:
            size, kind = int.from_bytes(data[begin : begin + 4], "big"), data[begin + 4 : begin + 8]
            if kind == b"elst":
                body = bytes(4) + len(edits).to_bytes(4, "big")
                for start, length in edits:
                    first = -1 if start < 0 else round(start * ticks)
                    body += round(length * scale).to_bytes(4, "big") + first.to_bytes(4, "big", signed=True)
                    body += (0x10000).to_bytes(4, "big")
                parts.append((8 + len(body)).to_bytes(4, "big") + kind + body)
            elif kind in (b"moov", b"trak", b"edts"):
                if kind == b"trak":
                    header = data.index(b"mdhd", begin) + 16
                    ticks = int.from_bytes(data[header : header + 4], "big")
                inner = rebuilt(begin + 8, begin + size, scale, ticks)
                parts.append((8 + len(inner)).to_bytes(4, "big") + kind + inner)
            else:
                parts.append(data[begin : begin + size])
            begin += size
        return b"".join(parts)

    movie = data.index(b"mvhd") + 16
    moov = data.index(b"moov") - 4
    path.write_bytes(
        data[:moov] + rebuilt(moov, len(data), int.from_bytes(data[movie : movie + 4], "big"), 1)
    )
