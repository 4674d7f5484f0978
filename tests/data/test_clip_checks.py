"""A clip is judged by itself: a recording that stalls, falls silent or loses its sound keeps its good clips only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.data.clip_checks import Rejected, check_sound
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.prepare import prepare_videos
from xdub.geometry import SAMPLES_PER_FRAME
from xdub.media import write_video

FRAMES = 29
"""Frames of a clip; the recording has two."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[LedgerRow]]:
    """Ledger rows by the stem of the video, all in the order of time, from one call on a folder of videos."""
    from xdub.render.clips import make_clips

    pair = next(make_clips(7, [0], size=64, frames=2 * FRAMES, full_size=256, crop_scale=1.0))
    frames, speech = pair.full, pair.clip.audio
    photo = np.repeat(frames[5:6], FRAMES, axis=0)
    draw = np.random.default_rng(0)
    wall = draw.integers(0, 255, (320, 320 + 4 * FRAMES, 3)).astype(np.uint8)
    scene = np.stack([wall[:, 4 * n : 4 * n + 320] for n in range(FRAMES)])
    scene[:, 32:288, 32:288] = photo
    noise = np.clip(photo + draw.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)
    silence = np.zeros(2 * FRAMES * SAMPLES_PER_FRAME, np.float32)
    half = FRAMES * SAMPLES_PER_FRAME
    breath = np.where(np.arange(len(speech)) % half < half // 4, speech, 0)
    videos = {
        "talk": (frames, speech),
        "stall": (np.concatenate([frames, np.repeat(frames[-1:], 2 * FRAMES, 0)]), [*speech, *silence]),
        "stalled_call": (np.concatenate([frames[:FRAMES], photo]), speech),
        "breath": (frames, breath),
        "offset": (frames, 0.05 + 0 * speech),
        "photo": (photo, speech[:half]),
        "noise": (noise, speech[:half]),
        "wall": (scene, speech[:half]),
    }
    folder = tmp_path_factory.mktemp("in")
    for name, (pictures, sound) in videos.items():
        write_video(folder / f"{name}.mp4", pictures, audio=np.asarray(sound, np.float32), crf=20)
    for fps in (12, 15):
        times = (np.arange(2 * FRAMES * fps // 25) * 25 / fps).round().astype(int)
        write_video(folder / f"fps{fps}.mp4", frames[times], fps, audio=speech, crf=20)
    recipe = load_recipe("tiny", ["video.size=64", f"video.clip_frames={FRAMES}", "video.crop_scale=1.0"])
    out = tmp_path_factory.mktemp("out")
    prepare_videos([folder], out, recipe, workers=1)
    by_name: dict[str, list[LedgerRow]] = {}
    for row in Ledger(out).rows():
        by_name.setdefault(Path(row.input).stem, []).append(row)
    return by_name


def _results(rows: list[LedgerRow]) -> list[tuple[str, str]]:
    """Return (status, check) of a video's clips, sorted, without rows of frames in no clip."""
    return sorted((row.status, row.check) for row in rows if row.check != "length")


def test_a_recording_that_stalls_keeps_its_spoken_clips_and_has_a_row_for_each_other_one(rows) -> None:
    assert _results(rows["stall"]) == 2 * [("kept", "")] + 2 * [("rejected", "sound")]
    assert {row.clip_id for row in rows["stall"] if row.check} == {"frames 58-87", "frames 87-116"}


@pytest.mark.parametrize(
    ("name", "check", "value", "threshold"),
    [
        ("stalled_call", "still", pytest.approx(1, abs=0.1), 0.4),
        ("photo", "still", pytest.approx(1, abs=0.1), 0.4),
        ("noise", "still", pytest.approx(1, abs=0.1), 0.4),
        ("wall", "still", pytest.approx(1, abs=0.1), 0.4),
        ("breath", "sound", pytest.approx(0, abs=1e-5), 1e-4),
        ("offset", "sound", pytest.approx(0, abs=5e-5), 1e-4),
    ],
)
def test_a_clip_that_stands_still_or_is_mostly_silent_is_rejected_with_value_and_threshold(
    rows, name: str, check: str, value: float, threshold: float
) -> None:
    row = next(row for row in rows[name] if row.check == check)
    assert (row.status, row.value, row.threshold) == ("rejected", value, threshold)
    assert ("kept" in {row.status for row in rows[name]}) == (name == "stalled_call")


@pytest.mark.parametrize("name", ["talk", "fps12", "fps15"])
def test_a_source_with_few_frames_a_second_moves(rows, name: str) -> None:
    assert _results(rows[name]) == 2 * [("kept", "")]


def test_the_clip_in_which_the_sound_track_ends_is_rejected() -> None:
    draw = np.random.default_rng(0)
    sound = draw.uniform(-1, 1, FRAMES * SAMPLES_PER_FRAME)
    check_sound(sound, covered=0.95)
    with pytest.raises(Rejected, match="does not cover") as caught:
        check_sound(sound, covered=0.6)
    assert (caught.value.check, caught.value.value) == ("audio", 0.6)
