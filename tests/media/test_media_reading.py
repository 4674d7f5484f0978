"""Video is read at a constant rate, upright, with correct colours; broken files are errors."""

from __future__ import annotations

import tracemalloc

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.errors import UserError
from xdub.media import probe, read_audio, read_frames, read_video
from xdub.media.reader import resample


def test_a_25_fps_file_is_read_frame_by_frame(media):
    assert media.numbers(media.video()) == list(range(25))


def test_thirty_fps_becomes_25_by_nearest_timestamps(media):
    path = media.video(times=[n / 30 for n in range(60)], fps=30)
    expected = [round(n / 25 * 30) % 36 for n in range(50)]
    assert media.numbers(path) == expected


def test_fifty_fps_keeps_every_second_frame(media):
    path = media.video(times=[n / 50 for n in range(50)], fps=50)
    assert media.numbers(path) == [n % 36 for n in range(0, 50, 2)]


def test_a_file_at_the_ntsc_rate_keeps_its_length(media):
    path = media.video(times=[n * 1.001 / 30 for n in range(120)], fps=30)
    assert len(media.numbers(path)) == 100


def test_a_frame_of_variable_rate_is_repeated_for_its_duration(media):
    path = media.video(times=[0.0, 0.04, 0.08, 0.48, 0.52])
    got = media.numbers(path)
    assert len(got) == 14 and got[:3] == [0, 1, 2] and got[12:] == [3, 4]


@given(st.lists(st.floats(0.001, 0.3), min_size=1, max_size=40), st.sampled_from([12.5, 24.0, 25.0, 60.0]))
def test_resampling_picks_the_nearest_item_and_keeps_the_length(steps, fps):
    times = np.cumsum([0.0, *steps[:-1]]).tolist()
    got = list(resample([(t + 7.5, d, t) for t, d in zip(times, steps, strict=True)], fps))
    assert got and abs(len(got) - sum(steps) * fps) <= 1
    for n, time in enumerate(got):
        nearest = min(abs(t - n / fps) for t in times)
        assert abs(time - n / fps) <= nearest + 3e-6


def test_max_frames_stops_early_and_closes(media):
    assert media.numbers(media.video(), max_frames=3) == [0, 1, 2]


CODECS = [("a.mp4", "libx265"), ("b.webm", "libvpx-vp9"), ("c.mkv", "libsvtav1"), ("d.avi", "mpeg4")]


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_common_codecs_and_containers_are_read(media, name, codec):
    if codec not in av.codecs_available:
        pytest.fail(f"this PyAV build cannot encode {codec}, which the test needs")
    got = media.numbers(media.video(name, codec=codec))
    assert len(got) == 25
    assert np.abs(np.array(got) - np.arange(25)).max() <= 1


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_undone(media, rotation):
    path = media.video(rotation=rotation)
    frame = next(read_video(path))
    expected = np.rot90(media.ramp(0), rotation // 90)
    assert frame.shape == expected.shape == (probe(path).height, probe(path).width, 3)
    assert np.abs(frame.astype(int) - expected).mean() < 4


def test_odd_sizes_are_read_unchanged(media):
    frame = next(read_video(media.video(size=(63, 47), pix_fmt="yuv444p")))
    assert frame.shape == (47, 63, 3) and frame.flags.c_contiguous


def test_non_square_pixels_are_widened(media, tmp_path):
    path = tmp_path / "sar.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        container.mux(stream.encode(av.VideoFrame.from_ndarray(media.ramp(0), format="rgb24")))
        container.mux(stream.encode(None))
    assert next(read_video(path)).shape == (48, 128, 3)
    assert (probe(path).width, probe(path).height) == (128, 48)


def test_probe_returns_the_facts_of_a_file(media):
    info = probe(media.video(audio=np.zeros(8000), times=[n / 30 for n in range(30)], fps=30))
    assert (info.width, info.height, info.frames, info.codec) == (64, 48, 30, "h264")
    assert info.fps == pytest.approx(30, abs=0.1) and info.duration == pytest.approx(1.0, abs=0.01)
    assert info.has_audio and info.audio_rate == 16000 and info.rotation == 0


def test_memory_stays_bounded_over_a_long_video(media):
    path = media.video(times=[n / 25 for n in range(200)], size=(320, 240))
    tracemalloc.start()
    for _ in read_video(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 320 * 240 * 3


# --- mistakes of users: each is an error of one line ---


def message(action) -> str:
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in message(lambda: read_video(tmp_path / "none.mp4"))


def test_a_directory_is_refused(tmp_path):
    assert "directory" in message(lambda: read_video(tmp_path))


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "x.mp4"
    path.touch()
    assert "empty" in message(lambda: probe(path))


def test_text_is_not_a_video(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_text("hello " * 100)
    assert "not a readable media file" in message(lambda: read_video(path))


def test_a_wav_has_no_video_stream(media, tmp_path):

    path = media.wav("a.wav", media.tone(0.5, 16000), 16000)
    assert "no video stream" in message(lambda: read_video(path))


def test_an_mp4_without_video_is_refused(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert "no video stream" in message(lambda: read_video(path))
    assert read_audio(path).size == 8000


def test_a_picture_is_not_a_video(media, tmp_path):
    import cv2

    path = tmp_path / "face.png"
    cv2.imwrite(str(path), media.ramp(3))
    assert "still image" in message(lambda: read_video(path))


def test_a_file_cut_in_two_is_refused_not_shortened(media, tmp_path):
    whole = media.video(times=[n / 25 for n in range(100)], size=(128, 96))
    source = av.open(str(whole))
    # If the index comes first, a truncated file can be decoded, but has fewer frames.
    front = tmp_path / "front.mp4"
    with av.open(str(front), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    source.close()
    data = front.read_bytes()
    for path in (whole, front):
        path.write_bytes(path.read_bytes()[: len(data) * 6 // 10])
    assert "truncated" in message(lambda: read_video(front))
    assert "truncated" in message(lambda: read_video(whole))


def test_damaged_data_are_reported_while_reading(media):
    path = media.video(times=[n / 25 for n in range(50)], size=(160, 120))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    noise = np.random.default_rng(0).integers(0, 256, len(data) // 2, dtype=np.uint8).tobytes()
    data[start + 2000 : start + 2000 + len(noise) // 2] = noise[: len(noise) // 2]
    path.write_bytes(bytes(data))
    assert "corrupt" in message(lambda: list(read_video(path)))


def test_frames_can_be_stacked(media):
    assert read_frames(media.video(), max_frames=4).shape == (4, 48, 64, 3)


def test_names_with_spaces_and_accents_are_read(media):
    assert len(media.numbers(media.video("ein Gespräch – 1.mp4"))) == 25
