"""Goals of the tiny system on held-out rendered clips, and the check of a summary against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from xdub.evaluate.metric import Metric
from xdub.evaluate.metrics import HELD_OUT
from xdub.evaluate.metrics.leak_corr import LEAK_CORR
from xdub.evaluate.metrics.opening_corr import OPENING_CORR
from xdub.evaluate.metrics.psnr import LIP_PSNR, OUTSIDE_PSNR

Model = Literal["generator", "editor"]
"""Name of a model that dubs."""
MODELS: tuple[Model, ...] = ("generator", "editor")
"""Models that a summary has figures of, in the order of its table."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The value that one figure should reach."""

    text: str
    """The goal in words, for tables."""
    met: Callable[[float, str, Mapping[str, Any]], bool]
    """(value, model, summary) -> whether the goal is reached; nan reaches none."""


def _opening_met(value: float, model: str, summary: Mapping[str, Any]) -> bool:
    return value >= (0.85 if model == "editor" else 0.70)


def _lips_met(value: float, model: str, summary: Mapping[str, Any]) -> bool:
    return model == "generator" or value >= summary["generator"][LIP_PSNR.name]


GOALS = {
    OPENING_CORR.name: Goal(text="editor ≥ 0.85, generator ≥ 0.70", met=_opening_met),
    LEAK_CORR.name: Goal(text="within ± 0.15", met=lambda value, model, summary: abs(value) <= 0.15),
    LIP_PSNR.name: Goal(text="editor ≥ generator", met=_lips_met),
    OUTSIDE_PSNR.name: Goal(text="≥ 30 dB", met=lambda value, model, summary: value >= 30),
}
"""Metric's name -> goal; a metric without an entry has no goal."""

CEILINGS = {
    "truth": ("Readout on true frames", 0.95),
    "codec": ("Readout after the codec's round trip", 0.90),
}
"""Summary field -> label and goal of the correlations that no model can be expected to exceed."""


def measured(summary: Mapping[str, Any]) -> list[Metric[Any]]:
    """Return the metrics that a summary has; a summary of an older version may lack some."""
    return [metric for metric in HELD_OUT if all(metric.name in summary[model] for model in MODELS)]


def missed(summary: Mapping[str, Any]) -> list[str]:
    """Return one line for every goal that the summary does not reach; the list is empty if all are met."""
    lines = [
        f"{name}: {summary[name]:.3f} < {goal}"
        for name, (_, goal) in CEILINGS.items()
        if not summary[name] >= goal
    ]
    for metric in measured(summary):
        if goal := GOALS.get(metric.name):
            for model in MODELS:
                value = summary[model][metric.name]
                if not goal.met(value, model, summary):
                    lines.append(f"{model} {metric.name}: {metric.text(value)} (goal {goal.text})")
    return lines
