"""The learning rate is a function of the step alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdub.errors import UserError
from xdub.train.schedule import FINAL_SHARE, lr_at


@given(st.integers(0, 50), st.integers(1, 500), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_to_its_peak_and_then_never_rises(warmup: int, after: int, schedule: str) -> None:
    total = warmup + after
    rates = [lr_at(s, peak=2.0, warmup=warmup, total=total, schedule=schedule) for s in range(total + 3)]
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup] == 2.0
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    if schedule == "cosine":
        assert rates[total] == pytest.approx(2.0 * FINAL_SHARE)


def test_an_error_about_an_unknown_schedule_lists_the_valid_ones() -> None:
    with pytest.raises(UserError, match="'cosine' or 'constant'"):
        lr_at(5, peak=1.0, warmup=0, total=10, schedule="linear")
