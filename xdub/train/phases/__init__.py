"""One file per training phase: what it minimises. What else sets it apart is in `xdub.config.phases`; the loop is in
`xdub.train.trainer`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from xdub.config import phase_facts


def get_phase(name: str) -> ModuleType:
    """Module of a phase, with ``loss(model, batch, ctx) -> LossTerms``. UserError for a name that is no phase's."""
    return import_module(f"xdub.train.phases.{phase_facts(name).name}")
