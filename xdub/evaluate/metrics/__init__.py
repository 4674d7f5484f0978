"""Metrics, one file each: plain NumPy in, plain numbers out; no model and no file is opened here."""

from __future__ import annotations

from xdub.evaluate.metrics.leak_corr import Leak, leak_corr
from xdub.evaluate.metrics.opening_corr import Correlation, opening_corr, pearson
from xdub.evaluate.metrics.psnr import lip_box, mean_psnr, outside, psnr
from xdub.evaluate.metrics.silence_opening import rest_opening, silence_opening

__all__ = [
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
