"""`python -m perf identity`: values of true and false pairs, and error rates that are shares of them."""

from __future__ import annotations

import numpy as np
import pytest

from perf.sampler import identity


def test_false_pairs_are_all_pairs_of_different_people_and_true_ones_the_clips_own() -> None:
    people = np.array([7, 7, 8])
    # Two people along two axes, two frames a clip.
    source = np.repeat(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[:, None], 2, axis=1)
    turned = source[..., ::-1]
    values = identity.pair_cosines({"source": source, "twin": source, "codec": source, "dub": turned}, people)
    assert values["twin"].tolist() == values["codec"].tolist() == [1, 1, 1] and values["dub"].tolist() == [
        0,
        0,
        0,
    ]
    # Four ordered pairs of clips of different people for each kind.
    assert sorted(values["others"].tolist()) == [0] * 8 + [1] * 4


def test_rates_are_shares_at_the_threshold_and_the_picture_shows_both_groups() -> None:
    values = {kind: np.linspace(0.705, 0.995, 30) for kind in identity.TRUE_KINDS}
    values["others"] = np.linspace(0.005, 0.845, 85)
    result = identity.summarise(values, 0.8)
    assert result["false_accepts"] == pytest.approx(5 / 85, abs=1e-5)
    assert result["false_rejects"] == pytest.approx(10 / 30, abs=1e-5)
    assert result["by_threshold"]["0.85"] == [0.0, pytest.approx(15 / 30, abs=1e-5)]
    assert result["cosines"]["others"]["pairs"] == 85
    (axes,) = identity.figure({"mobilefacenet": values}).axes
    assert "threshold 0.8" in [text.get_text() for text in axes.get_legend().get_texts()]
