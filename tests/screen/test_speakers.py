"""Clips are grouped by face and voice over files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xdub.screen.speakers import Likeness, group_speakers

SPEAKERS, SIZE = 12, 32


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    """Faces and voices [12, 32] of people."""
    draw = np.random.default_rng(0)
    return draw.normal(size=(SPEAKERS, SIZE)), draw.normal(size=(SPEAKERS, SIZE))


def likeness(people, face: int, voice: int, take: int, recording: str = "", noise: float = 0.25) -> Likeness:
    draw = np.random.default_rng([face, voice, take])
    clip_id = f"{face}-{voice}-{take}"
    return Likeness(
        clip_id=clip_id,
        recording=recording or clip_id,
        face=unit(people[0][face] + noise * draw.normal(size=SIZE)),
        voice=unit(people[1][voice] + noise * draw.normal(size=SIZE)),
    )


def grouped(clips: list[Likeness], threshold: float = 0.8) -> dict[str, str]:
    return group_speakers(clips, face_threshold=threshold, voice_threshold=threshold)


def test_utterances_of_one_speaker_in_different_files_form_a_group(people):
    clips = [likeness(people, n, n, take) for take in range(3) for n in range(SPEAKERS)]
    groups = grouped(clips)
    assert len(set(groups.values())) == SPEAKERS
    assert all(
        groups[f"{n}-{n}-{take}"] == f"speaker-{n}-{n}-0" for n in range(SPEAKERS) for take in range(3)
    )


def test_an_equal_face_with_another_voice_is_another_speaker(people):
    groups = grouped([likeness(people, 0, 0, 0), likeness(people, 0, 1, 0), likeness(people, 1, 0, 0)])
    assert len(set(groups.values())) == 3


def test_a_recording_joins_clips_at_a_lower_threshold(people):
    def count(recordings: list[str]) -> int:
        clips = [likeness(people, 0, 0, n, name, noise=0.5) for n, name in enumerate(recordings)]
        return len(set(grouped(clips, 0.85).values()))

    assert count(["a"] * 4) == 1 < count(["a", "b", "c", "d"])


def test_clips_that_are_added_change_no_earlier_group(people):
    clips = [likeness(people, n % 4, n % 4, n) for n in range(20)]
    before = grouped(clips[:9])
    assert before.items() <= grouped(clips).items()


def test_a_clip_without_a_face_or_a_voice_stays_alone(people):
    nan = np.full(SIZE, np.nan)
    one = likeness(people, 0, 0, 0)
    lost = [
        Likeness(clip_id="mute", recording="r", face=one.face, voice=nan),
        Likeness(clip_id="blind", recording="r", face=nan, voice=one.voice),
        Likeness(clip_id="blind too", recording="r", face=nan, voice=one.voice),
    ]
    groups = grouped([one, *lost])
    assert len(set(groups.values())) == 4
    assert grouped([]) == {}


def test_clips_that_follow_an_unmeasured_first_clip_are_grouped(people):
    nothing = np.full(1, np.nan)
    damaged = Likeness(clip_id="damaged", recording="", face=nothing, voice=nothing)
    blind = Likeness(clip_id="blind", recording="", face=nothing, voice=likeness(people, 0, 0, 9).voice)
    takes = [likeness(people, n, n, take) for take in range(2) for n in range(3)]
    groups = grouped([damaged, blind, *takes, replace(damaged, clip_id="damaged too")])
    assert len(set(groups.values())) == 6 and groups["0-0-0"] == groups["0-0-1"]
    assert groups["damaged"] == "speaker-damaged" != groups["damaged too"]
