"""Everything that the demo's report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LABELS = {"source": "Source", "generator": "Generator", "editor": "Editor", "truth": "Ground truth"}
"""Key of a video -> its name on the page."""


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One dubbed clip as the report shows it: F frames of any size, the same for all its videos."""

    name: str
    frames: Mapping[str, np.ndarray]
    """source, generator, editor, truth -> [F,H,W,3] uint8."""
    landmarks: np.ndarray
    """[F,68,2] of the source, px in these frames."""
    openings: Mapping[str, np.ndarray]
    """truth, old (true openings), generator, editor (read) -> [F]."""
    correlations: Mapping[str, float]
    """generator, editor -> correlation of their openings with the truth in this clip."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Summary, clips, losses and videos of one demo."""

    summary: Mapping[str, Any]
    """Content of summary.json."""
    clips: Sequence[ClipView]
    losses: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """phase -> steps, training loss."""
    mlflow_command: str
    videos: Mapping[str, bytes] = field(default_factory=dict)
    """source, editor, truth -> mp4 bytes of the first clip, shown playing."""
    dubbed_name: str = "dubbed.mp4"
    """Name of the dubbed video beside the page."""
