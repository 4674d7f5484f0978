"""One file per training phase: what it conditions on and what it minimises. The loop is in `xdub.train.trainer`."""

from __future__ import annotations

from types import ModuleType

from xdub.errors import UserError


def get_phase(name: str) -> ModuleType:
    """Module of a phase: ``loss(model, batch, ctx) -> LossTerms``, ``EXPERT`` (adapter name or None), and ``NETWORKS``.

    The last names the frozen networks of `PhaseContext` that the loss uses.
    """
    from xdub.train.phases import editor, generator, lip, texture

    phases = {"generator": generator, "editor": editor, "lip": lip, "texture": texture}
    if name not in phases:
        raise UserError(f"unknown phase {name!r}; choose one of: {', '.join(phases)}")
    return phases[name]
