"""The offset of sound and lips is found on rendered heads, corrected up to six frames, and rejected beyond."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.perception.syncnet.load import load_sync
from xdub.screen.offset import read_offset, reading_of
from xdub.screen.screen import Screen

OFFSETS = range(-5, 6)


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("tiny")


def test_offsets_of_five_frames_early_to_five_late_are_measured(recipe, speaker, footage_of):
    network = load_sync(recipe.perception)
    readings = [read_offset(network, footage_of(speaker, late=late)) for late in OFFSETS]
    assert [reading.offset for reading in readings] == list(OFFSETS)
    assert min(reading.confidence for reading in readings) > recipe.screen.offset_confidence


def test_small_offsets_are_corrected_and_large_ones_rejected(recipe, speaker, footage_of):
    screen = Screen(recipe)
    assert [screen(footage_of(speaker, late=late)).shift for late in (-6, 0, 4, 6)] == [-6, 0, 4, 6]
    late = screen(footage_of(speaker, late=9))
    assert late.failure is not None and late.shift == 0
    assert (late.failure.name, late.failure.value, late.failure.threshold) == ("offset", 9.0, 6.0)
    early = screen(footage_of(speaker, late=-8)).failure
    assert early is not None and early.threshold == -6.0 and "early" in early.message


def test_foreign_speech_has_no_confident_offset_and_fails_where_a_match_is_required(
    recipe, speaker, footage_of
):
    from xdub.render.person import draw_person
    from xdub.render.speech import speak
    from xdub.seeding import rng

    foreign = speak(rng("a-foreign-voice", 0), draw_person(3, 1).voice, 110).audio
    footage = footage_of(speaker, sound=foreign)
    result = Screen(recipe)(footage)
    assert result.failure is None and result.shift == 0 and "no offset" in result.note
    assert result.scores["offset_confidence"] < recipe.screen.offset_confidence
    strict = Screen(load_recipe("tiny", ["screen.require_sync=true"]))(footage).failure
    assert strict is not None and (strict.name, strict.threshold) == ("offset_confidence", 7.0)


def test_a_curve_without_enough_valid_offsets_is_not_judged():
    curve = np.zeros(31)
    curve[18] = 1.0
    curve[::2] += 0.05
    assert reading_of(curve, np.ones(31, bool)).offset == 3
    assert reading_of(curve, np.zeros(31, bool)).confidence == 0
    few = np.zeros(31, bool)
    few[16:21] = True
    assert reading_of(curve, few).confidence == 0
