"""What the tiny system is expected to reach on held-out rendered clips, and whether a summary does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of the generator-against-editor table."""

    key: str
    label: str
    meaning: str
    digits: int
    unit: str = ""
    goal: str = ""
    """The goal in words, for the table."""
    met: Callable[[float, str, Mapping[str, Any]], bool] | None = None
    """(value, "generator" | "editor", summary) -> reached; None: a figure without a goal."""


def _opening_met(value: float, model: str, summary: Mapping[str, Any]) -> bool:
    return value >= (0.85 if model == "editor" else 0.70)


ROWS = (
    Row(
        key="opening_corr",
        label="Lips follow the new speech",
        meaning="correlation over time of the read mouth opening with the truth",
        digits=3,
        goal="editor ≥ 0.85, generator ≥ 0.70",
        met=_opening_met,
    ),
    Row(
        key="leak_corr",
        label="Leak of the old speech",
        meaning="correlation with the part of the source's own opening that the new speech does not explain",
        digits=3,
        goal="within ± 0.15",
        met=lambda value, model, summary: abs(value) <= 0.15,
    ),
    Row(
        key="lip_psnr",
        label="Lips like the truth",
        meaning="PSNR in the box around the lips, against the twin that really speaks the new words",
        digits=2,
        unit=" dB",
        goal="editor ≥ generator",
        met=lambda value, model, summary: model == "generator" or value >= summary["generator"]["lip_psnr"],
    ),
    Row(
        key="outside_psnr",
        label="Rest undisturbed",
        meaning="PSNR outside the mouth region against the source, in the finished video",
        digits=2,
        unit=" dB",
        goal="≥ 30 dB",
        met=lambda value, model, summary: value >= 30,
    ),
    Row(
        key="raw_outside_psnr",
        label="Rest undisturbed, before paste-back",
        meaning="the same on the model's raw face crop",
        digits=2,
        unit=" dB",
    ),
    Row(
        key="silence_opening",
        label="Mouth opening in silence",
        meaning="read opening under silent audio minus that of closed mouths, in eye distances",
        digits=3,
    ),
)

CEILINGS = {
    "truth": ("Readout on true frames", 0.95),
    "codec": ("Readout after the codec's round trip", 0.90),
}
"""Summary field -> label and goal of the correlations that no model here can be expected to exceed."""


def missed(summary: Mapping[str, Any]) -> list[str]:
    """One line for every goal that the summary does not reach; empty if all are met."""
    lines = [
        f"{name}: {summary[name]:.3f} < {goal}"
        for name, (_, goal) in CEILINGS.items()
        if not summary[name] >= goal
    ]
    for row in ROWS:
        for model in ("generator", "editor"):
            value = summary[model][row.key]
            if row.met is not None and not row.met(value, model, summary):
                lines.append(f"{model} {row.key}: {value:.{row.digits}f}{row.unit} (goal {row.goal})")
    return lines
