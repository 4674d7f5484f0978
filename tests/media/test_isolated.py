"""Files are decoded in another process: a crash, a hang or damage costs one file, and every loss is recorded."""

from __future__ import annotations

import os
import re
import signal
import time
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from xdub.errors import UserError
from xdub.media import isolated, read_audio, read_video
from xdub.media import probe as probe_here
from xdub.media.audio import store_audio
from xdub.media.damage import Damage
from xdub.media.isolated import Deadline, DecoderCrash, TimeLimit
from xdub.media.testing import TestFilm, write_test_film


@pytest.fixture(scope="module", autouse=True)
def end_decoders():
    isolated.close_decoders()
    yield
    isolated.close_decoders()


def decoder() -> int:
    """Return the process id of the only idle decoder."""
    (process,) = isolated.idle_decoders()
    return process.pid


def test_facts_frames_and_sound_are_those_of_the_plain_readers(tmp_path):
    path = write_test_film(tmp_path / "a.mp4", TestFilm(seconds=0.8, sound=(0.0, 0.8), fps=12))
    assert isolated.probe(path) == probe_here(path)
    first = decoder()
    frames = list(isolated.read_video(path))
    assert len(frames) == 21 and frames[0] is frames[1]
    assert all(np.array_equal(a, b) for a, b in zip(frames, read_video(path), strict=True))
    assert np.array_equal(isolated.store_audio(path), read_audio(path))
    for exact in (True, False):
        stopped = isolated.read_video(path, exact=exact)
        next(stopped)
        stopped.close()
    assert decoder() == first


def test_errors_of_a_file_are_those_of_the_plain_readers(tmp_path):
    (tmp_path / "a.mp4").write_text("hello " * 100)
    for read in (isolated.probe, lambda path: next(isolated.read_video(path)), isolated.store_audio):
        with pytest.raises(UserError, match="not a readable media file"):
            read(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="no audio stream"):
        isolated.store_audio(write_test_film(tmp_path / "b.mp4", TestFilm(seconds=0.2, sound=None)))


def test_a_decoder_that_crashes_costs_its_file_alone(tmp_path):
    path = write_test_film(tmp_path / "a.mkv", TestFilm(size=(640, 480), sound=None))
    frames = isolated.read_video(path)
    next(frames)
    running = children()
    for process in running:
        os.kill(process, signal.SIGSEGV)
    with pytest.raises(DecoderCrash, match="its decoder crashed \\(SIGSEGV\\)"):
        list(frames)
    assert len(list(isolated.read_video(path))) == 60


def test_a_decoder_that_hangs_is_stopped_at_the_limit(tmp_path):
    path = write_test_film(tmp_path / "a.mkv", TestFilm(size=(640, 480), sound=None))
    deadline = Deadline(stall=60.0)
    frames = isolated.read_video(path, deadline=deadline)
    next(frames)
    deadline.stall = 0.3
    running = children()
    for process in running:
        os.kill(process, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(TimeLimit, match=r"no picture or sound within 0.3 s; its decoder was stopped"):
        list(frames)
    assert time.monotonic() - begin < 20 and not set(running) & set(children())
    with pytest.raises(TimeLimit, match=r"not finished after . s \(limit 0 s\)") as caught:
        isolated.store_audio(path, deadline=Deadline(limit=0.0))
    assert caught.value.limit == 0.0
    assert isolated.probe(path).width == 640


CUT = {
    "index first.mp4": (
        TestFilm(header={"movflags": "faststart"}),
        r"truncated: \d+ of 60 frames are beyond",
    ),
    "a.mkv": (TestFilm(), r"ends early: at 1.\d\d s of 2.42 s"),
    "a.webm": (TestFilm(codec="libvpx-vp9", audio_codec="libopus"), "ends early: at 1"),
    "a.avi": (TestFilm(codec="mpeg4", audio_codec="mp2"), r"ends early: at 1.\d\d s of 2.40 s"),
    "a.flv": (TestFilm(codec="flv"), "ends early: at 1"),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_ends_early_is_read_to_there_and_its_loss_is_recorded(name, tmp_path):
    film, reason = CUT[name]
    path = write_test_film(tmp_path / name, film)
    whole, picture, sound = Damage(), Damage(), Damage()
    assert len(list(isolated.read_video(path, damage=whole))) == 60 and whole == Damage()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    isolated.probe(path, picture)
    frames = len(list(isolated.read_video(path, damage=picture)))
    assert 25 < frames < 45 and picture.stated == pytest.approx(2.4, abs=0.03)
    assert re.match(reason, picture.reason)
    assert isolated.store_audio(path, damage=sound).size / 16000 == pytest.approx(frames / 25, abs=0.3)


def test_sound_that_cannot_be_decoded_is_silence_and_counted(tmp_path):
    source, path = write_test_film(tmp_path / "a.mkv"), tmp_path / "b.mkv"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        streams = [new.add_stream_from_template(stream) for stream in old.streams]
        for packet in old.demux():
            noise = packet.stream.type == "audio" and packet.pts in (213, 235, 1003)
            copy = av.Packet(b"\xff" * packet.size if noise else bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, streams[packet.stream_index]
            if packet.size:
                new.mux(copy)
    with pytest.raises(UserError, match="corrupt or unsupported data"):
        read_audio(path)
    damage = Damage()
    stored = isolated.store_audio(path, damage=damage)
    assert damage == Damage(packets=3) and stored.size / 16000 == pytest.approx(2.41, abs=0.03)
    loud = np.flatnonzero(np.abs(stored[:]) > 0.2)
    assert loud[0] / 16000 == pytest.approx(1.2, abs=0.01)


def test_a_recording_that_begins_between_two_key_frames_is_read_from_the_next(tmp_path):
    path = write_test_film(tmp_path / "a.ts", TestFilm(options={"g": "20", "bf": "0"}, sound=None))
    data = path.read_bytes()
    # The first packets hold the key frame and the tables; the tables come again.
    path.write_bytes(data[188 * 30 :])
    assert 20 <= len(list(read_video(path))) < 60


def test_the_memory_of_sound_does_not_grow_with_its_length(tmp_path):
    path = tmp_path / "a.flac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        for n in range(200):
            frame = av.AudioFrame.from_ndarray(np.full((1, 16000), n % 7, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16000, 16000 * n
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    tracemalloc.start()
    stored = store_audio(path)
    levels = [float(np.abs(block).max()) for block in stored.blocks()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored.size == 200 * 16000 and max(levels) == pytest.approx(6 / 32768)
    # All samples would be 12.8 MB.
    assert peak < 2.5e6


def children() -> list[int]:
    """Return the process ids of the decoders of this process."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, status = (folder / "cmdline").read_bytes(), (folder / "status").read_text()
        except OSError:
            continue
        if b"decoder_process" in command and f"PPid:\t{os.getpid()}\n" in status:
            pids.append(int(folder.name))
    return pids
