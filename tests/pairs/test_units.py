"""Plans of a pair run: speech, twins and units depend on data and seed only."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xdub.config import load_recipe
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardWriter
from xdub.data.sound import surrounded
from xdub.data.testing import make_clip
from xdub.dub.testing import small_recipe
from xdub.pairs.audio_choice import (
    OTHER_SPEAKER,
    OWN_SHIFTED,
    SAME_SPEAKER,
    SpeechIndex,
    Utterance,
    cut_audio,
)
from xdub.pairs.units import TWIN, Entry, excluded_rows, plan_units, read_entries
from xdub.seeding import rng

utterances = st.lists(st.tuples(st.integers(0, 3), st.integers(5, 60)), min_size=1, max_size=12).map(
    lambda rows: [Utterance(clip_id=f"c{n}", speaker=f"s{s}", num_frames=f) for n, (s, f) in enumerate(rows)]
)


@given(utterances, st.integers(0, 5))
def test_speech_is_of_the_same_speaker_if_possible_and_depends_on_the_seed(clips, seed: int) -> None:
    index, again = SpeechIndex(clips), SpeechIndex(clips[::-1])
    lengths = {u.clip_id: u.num_frames for u in clips}
    for target in clips:
        choices = index.choices(target, seed)
        assert choices == again.choices(target, seed)
        siblings = [u for u in clips if u.speaker == target.speaker and u != target]
        strangers = [u for u in clips if u.speaker != target.speaker]
        rule = SAME_SPEAKER if siblings else OTHER_SPEAKER if strangers else OWN_SHIFTED
        first = choices[0]
        assert first.rule == rule
        assert (first.clip_id == target.clip_id) == (rule == OWN_SHIFTED)
        if rule == SAME_SPEAKER and max(u.num_frames for u in siblings) >= target.num_frames:
            assert first.start // 640 + target.num_frames <= lengths[first.clip_id]
        assert choices[-1].rule == OWN_SHIFTED


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(5, 9)), min_size=1, max_size=60),
    st.integers(0, 5),
    st.integers(1, 20),
)
def test_the_choices_are_those_of_a_search_through_all_utterances(rows, seed: int, near: int) -> None:
    clips = [Utterance(clip_id=f"c{n}", speaker=f"s{s}", num_frames=f) for n, (s, f) in enumerate(rows)]
    index = SpeechIndex(clips)
    for target in clips:
        random = rng("pair-audio", seed, target.clip_id)
        by_length = sorted(clips, key=lambda u: (u.num_frames, u.clip_id))
        same = [u for u in by_length if u.speaker == target.speaker and u != target]
        same = [u for u in same if u.num_frames >= target.num_frames] or same
        drawn = [same[n] for n in random.permutation(len(same))[:4]]
        first = bisect_left([u.num_frames for u in by_length], target.num_frames)
        around = by_length[max(0, first - near) : first + near]
        others = [u for u in around if u.speaker != target.speaker]
        others = others or [u for u in by_length if u.speaker != target.speaker]
        least = min((abs(u.num_frames - target.num_frames) for u in others), default=0)
        alike = [u for u in others if abs(u.num_frames - target.num_frames) == least]
        assert index._alike(target, near) == alike
        if near == 16:
            drawn += [alike[n] for n in random.permutation(len(alike))[:4]]
            names = [choice.clip_id for choice in index.choices(target, seed)]
            assert names == [*(u.clip_id for u in drawn), target.clip_id]
        else:
            names = [choice.clip_id for choice in index.choices(target, seed) if choice.rule == SAME_SPEAKER]
            assert names == [u.clip_id for u in drawn]


def test_a_speaker_of_one_utterance_gets_speech_of_similar_length_of_another() -> None:
    rows = [("a", 40), ("b", 10), ("b", 41), ("c", 90)]
    us = [Utterance(clip_id=f"c{n}", speaker=s, num_frames=f) for n, (s, f) in enumerate(rows)]
    assert SpeechIndex(us).choices(us[0], 0)[0].clip_id == "c2"


def test_speech_that_is_too_short_is_repeated() -> None:
    audio = 1 + np.arange(640 * 2, dtype=np.float32)
    sound = surrounded(audio, before=np.full(16_000, -1, np.float32))
    cut = cut_audio(sound, 640, 4)
    assert len(cut) == 54 * 640
    np.testing.assert_array_equal(cut[: 16_000 - 640], -1)
    np.testing.assert_array_equal(cut[16_000 - 640 :][: 6 * 640], np.tile(audio, 3))
    np.testing.assert_array_equal(cut[-640:], audio[640:])


def test_speech_of_sufficient_length_keeps_the_sound_before_and_after_it() -> None:
    sound = surrounded(1 + np.arange(640 * 60, dtype=np.float32), after=np.full(100, -1, np.float32))
    np.testing.assert_array_equal(cut_audio(sound, 20 * 640, 4), sound[20 * 640 : 74 * 640])
    np.testing.assert_array_equal(cut_audio(sound, 56 * 640, 4)[-16_000:][:101], [-1] * 100 + [0])


def _entries(count: int, twins: int) -> list[Entry]:
    clips = [
        Entry(clip_id=f"{n:04x}", speaker=f"s{n % 4}", num_frames=25, twin_of=None) for n in range(count)
    ]
    for n in range(twins):
        clips.append(replace(clips[n], clip_id=f"{n:04x}twin", twin_of=clips[n].clip_id))
    return clips


def test_a_recipe_of_random_networks_builds_pairs_of_ungrouped_files() -> None:
    entries = [
        Entry(clip_id=f"{n:04x}", speaker=f"talk {n}.mp4", num_frames=25, twin_of=None) for n in range(4)
    ]
    for name, excluded in (("tiny", 4), ("mini", 0), ("mini-wan", 0)):
        assert len(excluded_rows(entries, load_recipe(name))) == excluded


@given(st.integers(1, 30), st.integers(0, 30), st.floats(0, 1), st.integers(1, 9))
def test_every_clip_is_planned_once_and_twins_have_their_share(
    count: int, twins: int, share: float, batch: int
) -> None:
    twins = min(count, twins)
    recipe = small_recipe(
        f"pairs.render_twins={share}", f"pairs.batch={batch}", "pairs.require_other_utterance=false"
    )
    entries = _entries(count, twins)
    units = plan_units(entries, recipe, generator_digest="g", seed=0)
    jobs = [job for unit in units for job in unit.jobs]
    exact = [job for job in jobs if job.kind == TWIN]
    others = [job for job in jobs if job.kind != TWIN]
    assert len({job.key for job in jobs}) == len(jobs) == len({job.pair_id for job in jobs})
    if share < 1:
        assert sorted(job.key for job in others) == sorted(entry.clip_id for entry in entries)
        assert len(exact) == min(2 * twins, round(share / (1 - share) * len(entries)))
    else:
        assert not others and len(exact) == 2 * twins
    assert all(len(unit.jobs) <= batch for unit in units)
    assert [unit.number for unit in units] == list(range(len(units)))
    for job in exact:
        assert {entries[job.row].clip_id, entries[job.row].twin_of} & {
            entries[job.twin_row].clip_id, entries[job.twin_row].twin_of
        } - {None}  # fmt: skip


def test_a_pairs_id_changes_with_everything_that_decides_its_content_and_with_nothing_else() -> None:
    entries, recipe = _entries(6, 2), small_recipe()

    def ids(recipe=recipe, **changes) -> list[str]:
        units = plan_units(entries, recipe, **({"generator_digest": "g", "seed": 0} | changes))
        return [job.pair_id for unit in units for job in unit.jobs]

    same = ids()
    assert same == ids() == ids(small_recipe("train.lr=0.5", "dub.sampler_steps=7"))
    for other in (ids(generator_digest="h"), ids(seed=1), ids(small_recipe("pairs.sampler_steps=3"))):
        assert not set(same) & set(other)


def test_planning_reads_no_shard(tmp_path) -> None:
    clip = make_clip(0, num_frames=5, speaker="a", twin_of="b")
    with ShardWriter(tmp_path) as writer:
        writer.add(clip)
    manifest = read_manifest(tmp_path)
    (tmp_path / manifest.shards[0].file).unlink()
    assert read_entries(manifest) == [Entry(clip_id=clip.clip_id, speaker="a", num_frames=5, twin_of="b")]
