"""`dub_video` as a whole: lengths, sizes, sound, and messages about bad input."""

from __future__ import annotations

import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from xdub.dub import dub, dub_video
from xdub.errors import UserError
from xdub.media import probe, read_audio, read_frames, write_video
from xdub.perception.faces import FaceTrack


def _wav(path: Path, seconds: float, rate: int = 16000) -> Path:
    samples = np.rint(8000 * np.sin(np.arange(round(seconds * rate)) / 20)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def _video(path: Path, frames: int, width: int = 96, height: int = 80, fps: float = 25.0) -> Path:
    y, x = np.mgrid[:height, :width]
    pictures = (
        np.stack([x + 2 * n, y + n, 100 + 0 * x], -1).clip(0, 255).astype(np.uint8) for n in range(frames)
    )
    write_video(path, pictures, fps=fps, crf=5)
    return path


@pytest.fixture()
def one_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace face tracking: a face is in the middle of every frame but 3 and 4."""

    def track(video: Path, max_frames: int, on_frame=None) -> FaceTrack:
        frames = read_frames(video, max_frames=max_frames)
        count, height, width, _ = frames.shape
        points = np.random.default_rng(0).uniform(-0.4, 0.4, (68, 2))
        points[36:42], points[42:48], points[27:36] = (-0.5, -0.5), (0.5, -0.5), (0, 0.1)
        landmarks = np.tile(points * 24 + (width / 2, height / 2), (count, 1, 1)).astype(np.float32)
        landmarks[3:5] = np.nan
        has_face = np.isfinite(landmarks[:, 0, 0])
        return FaceTrack(
            landmarks68=landmarks,
            landmarks478=np.full((count, 478, 3), np.nan, np.float32),
            detected=has_face,
            faces=has_face.astype(int),
            cuts=np.zeros(count, bool),
            height=height,
            width=width,
        )

    monkeypatch.setattr(dub, "track_face", track)


@pytest.mark.parametrize("use", ["editor", "generator"])
def test_the_speech_decides_the_length_and_the_video_the_size(tmp_path, bundle_folder, one_face, use) -> None:
    video, audio = _video(tmp_path / "v.mp4", 60), _wav(tmp_path / "a.wav", 1.61)
    states = []
    report = dub_video(
        video,
        audio,
        tmp_path / "o.mp4",
        model=bundle_folder,
        use=use,
        on_progress=lambda *state: states.append(state),
    )
    info = probe(tmp_path / "o.mp4")
    assert (report.frames, report.dubbed, report.mirrored) == (40, 38, False)
    assert (info.frames, info.width, info.height, info.fps) == (40, 96, 80, 25.0)
    assert len(read_audio(tmp_path / "o.mp4")) == pytest.approx(40 * 640, abs=700)
    # Writing is a pass of its own with its own count: 1 to 40 of 40, not 41 to 80 of 80.
    written = [state for state in states if state[2] == "frames written"]
    assert written == [(n, 40, "frames written") for n in range(1, 41)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "o.mp4", "v.mp4"]


def test_silent_speech_is_reported_before_the_work(tmp_path, bundle_folder, one_face) -> None:
    video, audio = _video(tmp_path / "v.mp4", 6), tmp_path / "silent.wav"
    write_video(tmp_path / "s.mp4", [np.zeros((16, 16, 3), np.uint8)] * 5, audio=np.zeros(3200, np.float32))
    (tmp_path / "s.mp4").rename(audio)
    events: list[object] = []
    dub_video(
        video,
        audio,
        tmp_path / "o.mp4",
        model=bundle_folder,
        on_warning=events.append,
        on_progress=lambda done, total=None, text="": events.append(done),
    )
    assert events[0] == f"{audio}: its sound is silent, so the mouth will stay closed"
    assert sum(isinstance(event, str) for event in events) == 1


def test_everything_but_the_lower_face_stays(tmp_path, bundle_folder, one_face) -> None:
    video, audio = _video(tmp_path / "v.mp4", 30), _wav(tmp_path / "a.wav", 1.2)
    dub_video(video, audio, tmp_path / "o.mp4", model=bundle_folder)
    before, after = read_frames(video).astype(int), read_frames(tmp_path / "o.mp4").astype(int)
    # Frames without a face differ by the encoder's error alone.
    assert np.abs(before - after)[3:5].mean() < 2
    changed = np.abs(before - after).max(-1) > 25
    assert changed[10].sum() > 50
    assert not changed[:, :20].any() and not changed[:, :, :16].any() and not changed[:, :, -16:].any()


def test_a_short_video_of_odd_size_is_played_back_and_forth(tmp_path, bundle_folder, one_face) -> None:
    video, audio = tmp_path / "v.mkv", _wav(tmp_path / "a.wav", 2.0, rate=44100)
    write_video(video, (np.full((67, 91, 3), 12 * n, np.uint8) for n in range(12)), fps=12.5)
    report = dub_video(video, audio, tmp_path / "o.mp4", model=bundle_folder)
    assert report.mirrored and report.frames == 50
    shown = read_frames(tmp_path / "o.mp4")[:, 0, 0, 0]
    assert np.abs(np.diff(shown.astype(int))).max() <= 15  # no jump and no restart


def test_the_seed_decides_the_frames(tmp_path, bundle_folder, one_face, monkeypatch) -> None:
    video, audio = _video(tmp_path / "v.mp4", 12), _wav(tmp_path / "a.wav", 0.4)
    written = []

    def keep(out: Path, frames: Iterable[np.ndarray], **options) -> int:
        written.append(np.stack(list(frames)))
        return len(written[-1])

    monkeypatch.setattr(dub, "write_video", keep)
    for seed in (1, 1, 2):
        dub_video(video, audio, tmp_path / "o.mp4", model=bundle_folder, seed=seed)
    np.testing.assert_array_equal(written[0], written[1])
    assert (written[0] != written[2]).any()


def _bad(tmp_path: Path) -> dict[str, tuple[dict[str, Path], str]]:
    video, audio = _video(tmp_path / "v.mp4", 5), _wav(tmp_path / "a.wav", 0.4)
    silent = _wav(tmp_path / "zero.wav", 0)
    (tmp_path / "text.mp4").write_text("not a video")
    good = {"video": video, "audio": audio, "out": tmp_path / "o.mp4"}
    return {
        "missing video": (good | {"video": tmp_path / "none.mp4"}, "no such file"),
        "missing audio": (good | {"audio": tmp_path / "none.wav"}, "no such file"),
        "sound as video": (good | {"video": audio}, "no video stream"),
        "silent film as audio": (good | {"audio": video}, "no audio stream"),
        "no samples": (good | {"audio": silent}, "zero.wav"),
        "no media": (good | {"video": tmp_path / "text.mp4"}, "text.mp4"),
        "no such folder": (good | {"out": tmp_path / "none/o.mp4"}, "does not exist"),
        "no such type": (good | {"out": tmp_path / "o.gif"}, "unknown video type"),
        "onto the video": (good | {"out": video}, "is the input itself"),
        "no model": (good | {"model": tmp_path / "none"}, "not a model folder"),
        "no face": (good, "no face found in its 5 frames"),
    }


def test_bad_input_raises_one_clear_line_and_leaves_no_file(tmp_path, bundle_folder, monkeypatch) -> None:
    def track_no_face(video: Path, max_frames: int, on_frame=None) -> FaceTrack:
        return FaceTrack(
            landmarks68=np.full((5, 68, 2), np.nan, np.float32),
            landmarks478=np.full((5, 478, 3), np.nan, np.float32),
            detected=np.zeros(5, bool),
            faces=np.zeros(5, int),
            cuts=np.zeros(5, bool),
            height=80,
            width=96,
        )

    monkeypatch.setattr(dub, "track_face", track_no_face)
    cases = _bad(tmp_path)
    before = sorted(tmp_path.iterdir())
    for name, (arguments, words) in cases.items():
        with pytest.raises(UserError, match=words) as error:
            dub_video(**({"model": bundle_folder} | arguments))
        assert "\n" not in str(error.value), name
        assert sorted(tmp_path.iterdir()) == before, name
