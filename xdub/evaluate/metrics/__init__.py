"""Metrics, one file each: plain NumPy in, plain numbers out; no model and no file is opened in this package."""

from __future__ import annotations

from typing import Any

from xdub.evaluate.metric import Metric
from xdub.evaluate.metrics.leak_corr import LEAK_CORR, RAW_LEAK_CORR, Leak, leak_corr
from xdub.evaluate.metrics.opening_corr import (
    OPENING_CORR,
    OPENING_CORR_READOUT,
    Correlation,
    opening_corr,
    pearson,
)
from xdub.evaluate.metrics.psnr import (
    LIP_PSNR,
    OUTSIDE_PSNR,
    PSNR,
    RAW_OUTSIDE_PSNR,
    lip_box,
    mean_psnr,
    outside,
    psnr,
)
from xdub.evaluate.metrics.silence_opening import SILENCE_OPENING, rest_opening, silence_opening

HELD_OUT: tuple[Metric[Any], ...] = (
    OPENING_CORR,
    LEAK_CORR,
    LIP_PSNR,
    OUTSIDE_PSNR,
    RAW_OUTSIDE_PSNR,
    SILENCE_OPENING,
)
"""Metrics of the demo's held-out clips, in the order of its table."""
SCORED: tuple[Metric[Any], ...] = (
    PSNR,
    LIP_PSNR,
    OPENING_CORR,
    OPENING_CORR_READOUT,
    LEAK_CORR,
    RAW_LEAK_CORR,
)
"""Metrics of `xdub eval score`, in the order of its output."""

__all__ = [
    "HELD_OUT",
    "SCORED",
    "Correlation",
    "Leak",
    "leak_corr",
    "lip_box",
    "mean_psnr",
    "opening_corr",
    "outside",
    "pearson",
    "psnr",
    "rest_opening",
    "silence_opening",
]
