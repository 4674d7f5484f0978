"""The filters' picture is drawn from any ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config import load_recipe
from xdub.data.ledger import Ledger, LedgerRow
from xdub.pairs.filter_plots import draw_filters, filter_figure

RECIPE = load_recipe("tiny", ["pairs.identity_threshold=0.9", "pairs.mouth_threshold=0.6"])


def _row(number: int, identity: float, mouth: float) -> LedgerRow:
    check = "" if identity >= 0.9 and mouth >= 0.6 else "identity" if identity < 0.9 else "mouth_distance"
    value = {"identity": identity, "mouth_distance": mouth}.get(check)
    scores = {"identity": identity, "mouth_distance": mouth}
    status = "rejected" if check else "kept"
    return LedgerRow(
        input=str(number), clip_id=str(number), status=status, check=check, value=value, scores=scores
    )


ROWS = [
    *(_row(n, 0.85 + 0.02 * n, 0.4 + 0.1 * n) for n in range(7)),
    LedgerRow(input="blank", status="rejected", check="black", value=0.1, scores={"black": 0.1}),
    LedgerRow(
        input="lost", status="rejected", check="mouth_distance", scores={"mouth_distance": float("nan")}
    ),
    LedgerRow(input="torn", status="failed", message="damaged"),
]


def _bars(axes) -> dict[str, int]:
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, (round(bar.get_width()) for bar in axes.patches), strict=True))


def test_every_row_is_in_the_counts_and_every_score_in_a_histogram() -> None:
    identity, mouth, results = filter_figure(ROWS, RECIPE).axes
    for axes in (identity, mouth):
        assert sum(bar.get_height() for bar in axes.patches) == 7
    assert _bars(results) == {"kept": 4, "identity": 3, "black": 1, "mouth_distance": 1, "failed": 1}


def test_thresholds_are_lines_with_their_numbers() -> None:
    for axes, threshold in zip(filter_figure(ROWS, RECIPE).axes, (0.9, 0.6), strict=False):
        assert threshold in {float(line.get_xdata()[0]) for line in axes.lines}
        assert f"threshold {threshold}" in [text.get_text() for text in axes.get_legend().get_texts()]
        low, high = axes.get_xlim()
        assert low < threshold < high


@pytest.mark.parametrize("rows", [[], ROWS[-1:], ROWS[:1], ROWS], ids=["empty", "a failure", "one", "all"])
def test_any_ledger_can_be_drawn_twice(tmp_path: Path, rows: list[LedgerRow]) -> None:
    with Ledger(tmp_path) as ledger:
        for row in rows:
            ledger.add(row)
    for _ in range(2):
        png = draw_filters(tmp_path, RECIPE)
        assert png.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "filters.svg").read_text().rstrip().endswith("</svg>")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("filters.png", "filters.svg"),
        *(["ledger"] if rows else []),
    ]
