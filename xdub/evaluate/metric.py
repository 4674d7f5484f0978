"""One description for every metric: tables, pages, MLflow and the command line loop over it.

A metric is added as one file in `xdub.evaluate.metrics` that defines a `Metric`, and one line in the lists of that
package. `needs` names the inputs of `compute`, so a metric is left out where its inputs are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np

INPUTS = {
    "video": "[F,H,W,3] uint8 frames of the dubbed video",
    "reference": "[F,H,W,3] uint8 frames of the same head that really says the new words",
    "source": "[F,H,W,3] uint8 frames of the video that was dubbed, with the old words",
    "landmarks": "[F,68,2] px in these frames: one track of the head that serves all versions of the clip",
    "lips": "[F,H,W] bool box around the mouth of reference and source (or video)",
    "rest": "[F,H,W] bool region outside the mouth that dubbing must keep",
    "raw_video": "[F,S,S,3] uint8 crops from the model before they are pasted back",
    "raw_source": "[F,S,S,3] uint8 crops that the model received",
    "raw_rest": "[F,S,S] bool region of the crops outside the mouth",
    "opening": "[F] mouth opening in the video, in eye distances",
    "new_opening": "[F] mouth opening in the reference",
    "old_opening": "[F] mouth opening in the source",
    "reading": "[F] mouth opening in the video, read by the packaged network",
    "reference_reading": "[F] mouth opening in the reference, read by the packaged network",
    "silent_reading": "[F] like reading, of the clip dubbed with silence; [0] if there is no such video",
}
"""Name and meaning of every input that a metric may need. nan marks frames without a face."""

Inputs = Mapping[str, np.ndarray]
"""Inputs of one clip by name; a caller passes those that it has."""
Kept = TypeVar("Kept")
"""Type of what `compute` keeps of a clip."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Value of a metric over a set of clips."""

    value: float
    """The number in tables; nan where nothing could be measured."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Finer figures under their names in summary.json."""


@dataclass(frozen=True, kw_only=True)
class Metric(Generic[Kept]):
    """One number about dubbed clips, and everything that is shown with it."""

    name: str
    """Key in JSON files and in MLflow."""
    label: str
    """Name in tables."""
    meaning: str
    """One line that explains the number."""
    better: Literal["higher", "lower", "zero"]
    """Direction of improvement; "zero": the nearer to 0, the better."""
    unit: str = ""
    digits: int = 3
    """Decimal places in tables."""
    needs: tuple[str, ...]
    """Names from `INPUTS`, in the order of the arguments of `compute`."""
    compute: Callable[..., Kept]
    """Reduce one clip to what `combine` needs of it, while the clip's frames are in memory."""
    combine: Callable[[Sequence[Kept]], Figure]
    """Compute the figure of a set of clips."""
    remark: Callable[[Mapping[str, Mapping[str, Any]]], str] | None = None
    """(model -> its details) -> a line below the metric's row; None adds no line."""

    def text(self, value: float) -> str:
        """Format a value with its unit."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{value:.{self.digits}f}{unit}"

    def signed(self, value: float) -> str:
        """Format a value without its unit, with a plus sign where both signs are possible."""
        return f"{value:{'+' if self.better == 'zero' else ''}.{self.digits}f}"


def keep(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Keep the inputs themselves: the `compute` of metrics on short series."""
    return inputs


def measure(metrics: Sequence[Metric[Any]], inputs: Inputs) -> dict[str, Any]:
    """Compute all metrics whose inputs are present on one clip: metric's name -> kept value."""
    return {
        metric.name: metric.compute(*(inputs[name] for name in metric.needs))
        for metric in metrics
        if all(name in inputs for name in metric.needs)
    }


def combine(metrics: Sequence[Metric[Any]], clips: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Compute the figures of a set of clips from their `measure`: metric's name -> figure.

    A clip without a metric is left out of that metric; a metric that no clip has is left out of the result.
    """
    kept = {metric: [clip[metric.name] for clip in clips if metric.name in clip] for metric in metrics}
    return {metric.name: metric.combine(values) for metric, values in kept.items() if values}
