"""One file per training phase with the loss that it minimises.

Everything else that sets a phase apart is in `xdub.config.phases`; the loop is in `xdub.train.trainer`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

from xdub.config import phase_facts
from xdub.losses.terms import LossTerms

PhaseLoss = Callable[[nn.Module, Any, Any], LossTerms]
"""(model, batch, context) -> losses of one micro batch; the phase's learner makes batch and context."""


def phase_loss(name: str) -> PhaseLoss:
    """Return the loss of a phase. Raise UserError for an unknown phase."""
    return import_module(f"xdub.train.phases.{phase_facts(name).name}").loss
