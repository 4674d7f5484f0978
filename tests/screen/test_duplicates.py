"""The same footage is recognised after a new encoding, and other footage of the same person is not."""

from __future__ import annotations

import time

import cv2
import numpy as np

from xdub.media import decode_clip_bytes, encode_clip_bytes
from xdub.screen.duplicates import find_duplicates, same_footage
from xdub.screen.footprint import Footprint, footprint, sound_words


def test_a_copy_that_is_encoded_anew_resized_louder_and_cut_elsewhere_is_a_duplicate(person):
    clip, twin = person.clip, person.twin
    frames = decode_clip_bytes(encode_clip_bytes(clip.frames[7:52]))
    small = np.stack([cv2.resize(frame, (48, 48), interpolation=cv2.INTER_AREA) for frame in frames])
    noise = np.random.default_rng(0).normal(0, 0.003, 45 * 640)
    # The copy begins 2 ms beside a frame.
    sound = (1.4 * clip.audio[7 * 640 + 32 :][: 45 * 640] + noise).astype(np.float32)
    prints = [
        footprint(clip.frames[:45], clip.audio[: 45 * 640]),
        footprint(twin.frames, twin.audio),
        footprint(small, sound),
    ]
    (duplicate,) = find_duplicates(prints)
    assert (duplicate.clip, duplicate.of) == (2, 0) and 0.7 < duplicate.value <= 1
    # Either half alone is no duplicate: the same pictures with other speech, or the same speech with other pictures.
    other = np.random.default_rng(1).integers(0, 255, (45, 64, 64, 3)).astype(np.uint8)
    assert find_duplicates([prints[0], footprint(other, clip.audio[: 45 * 640])]) == []


def test_copies_of_copies_name_the_first_clip(person):
    one = footprint(person.clip.frames, person.clip.audio)
    # More copies than `COMMON` are linked one after another.
    assert [(d.clip, d.of) for d in find_duplicates([one] * 25)] == [(n, 0) for n in range(1, 25)]


def test_clips_that_overlap_by_less_than_half_are_different(person):
    def part(start: int, end: int) -> Footprint:
        return footprint(person.clip.frames[start:end], person.clip.audio[start * 640 : end * 640])

    assert len(find_duplicates([part(0, 40), part(10, 50)])) == 1
    assert find_duplicates([part(0, 40), part(25, 60)]) == []


def test_silent_and_short_clips_are_no_duplicates(person):
    frames = person.clip.frames[:20]
    silent = footprint(frames, np.zeros(20 * 640, np.float32))
    short = footprint(frames[:5], person.clip.audio[: 5 * 640])
    assert len(short.sound) == 0 and len(sound_words(np.zeros(0, np.float32))) == 0
    assert find_duplicates([silent, silent, short, short]) == [] and find_duplicates([]) == []
    assert same_footage(short, short, 0) is None


def test_the_search_grows_with_the_number_of_clips():
    draw = np.random.default_rng(0)

    def prints(count: int) -> list[Footprint]:
        words = draw.integers(0, 2**32, (count, 140), dtype=np.uint32)
        # A hum that all clips share would join all pairs.
        words[:, :20] = 0x0F0F0F0F
        pictures = draw.integers(0, 2**63, (count, 45), dtype=np.uint64)
        return [Footprint(sound=w, pictures=p) for w, p in zip(words, pictures, strict=True)]

    seconds = []
    for count in (1000, 4000):
        sets = prints(count)
        sets[-1] = sets[3]
        begin = time.process_time()
        duplicates = find_duplicates(sets)
        seconds.append(time.process_time() - begin)
        assert [(d.clip, d.of) for d in duplicates] == [(count - 1, 3)]
    assert seconds[1] < 12 * seconds[0] + 0.1
