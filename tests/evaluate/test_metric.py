"""Promises of every metric to the tables, pages and logs that loop over it."""

from __future__ import annotations

import numpy as np
import pytest

from xdub.evaluate.metric import INPUTS, Figure, Metric, combine, measure
from xdub.evaluate.metrics import HELD_OUT, SCORED

EVERY = list({metric.name: metric for metric in (*HELD_OUT, *SCORED)}.values())


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_metric_names_inputs_that_exist_and_describes_itself(metric: Metric) -> None:
    assert metric.needs and set(metric.needs) <= set(INPUTS)
    assert metric.label and metric.meaning and metric.name.isidentifier()


@pytest.mark.parametrize("metrics", [HELD_OUT, SCORED])
def test_a_table_has_every_metric_once(metrics: tuple[Metric, ...]) -> None:
    names = [metric.name for metric in metrics]
    assert len(names) == len(set(names))


def test_a_metric_is_left_out_where_its_inputs_are_missing() -> None:
    assert measure(HELD_OUT, {}) == {} and combine(HELD_OUT, [{}, {}]) == {}
    curve = np.sin(np.arange(20.0))
    kept = measure(HELD_OUT, {"opening": curve, "new_opening": curve})
    assert list(kept) == ["opening_corr"]
    figures = combine(HELD_OUT, [kept, {}])
    assert figures["opening_corr"].value == pytest.approx(1) and list(figures) == ["opening_corr"]


def test_a_new_metric_needs_nothing_but_its_own_definition() -> None:
    brightness = Metric(
        name="brightness",
        label="Brightness",
        meaning="mean of all pixels",
        better="zero",
        unit="levels",
        digits=1,
        needs=("video",),
        compute=np.mean,
        combine=lambda clips: Figure(value=float(np.mean(clips)), details={"brightness": list(clips)}),
    )
    clips = [measure([brightness], {"video": np.full((2, 4, 4, 3), level, np.uint8)}) for level in (10, 20)]
    figure = combine([brightness], clips)["brightness"]
    assert figure.value == 15 and brightness.text(figure.value) == "15.0 levels"
    assert brightness.signed(figure.value) == "+15.0"
