"""The training phases and what sets them apart. All other code reads it here; a phase's losses are in
`xdub/train/phases/<name>.py` and its numbers in the recipe's section `phases.<name>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdub.errors import UserError

Network = Literal["sync", "identity", "features"]
"""A frozen network that a loss looks through (`xdub.train.phases.common.PhaseContext`)."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One way of training the network."""

    name: str
    title: str
    """What `xdub bootstrap` says it is doing."""
    inpaints: bool = False
    """It sees the clip itself with the mouth hidden, and one other frame of it; it trains on clips. The other phases
    see an altered twin, frame for frame, and train on pairs."""
    expert: str | None = None
    """The adapter that it trains, on frozen weights. None: it trains all weights."""
    starts_from: str | None = None
    """The phase whose weights it goes on from; those of an expert stay frozen under it."""
    decodes: bool = False
    """A loss looks at decoded frames (Eq. 11)."""
    silences: bool = False
    """Part of its samples goes without audio attention, and `decodes` is for these alone."""
    networks: tuple[Network, ...] = ()
    epochs: float | None = None
    """Of the paper's data (B.6); None: not in the paper."""
    optional: bool = False
    """A recipe may go without it; then nothing trains it."""


_ALL = (
    Phase(name="generator", title="train the generator", inpaints=True, epochs=10.0),
    Phase(name="editor", title="train the editor", starts_from="generator", epochs=2.0),
    Phase(
        name="lip",
        title="train the lip expert",
        expert="lip",
        starts_from="editor",
        decodes=True,
        networks=("sync",),
        epochs=0.5,
    ),
    Phase(
        name="texture",
        title="train the texture expert",
        expert="texture",
        starts_from="editor",
        decodes=True,
        silences=True,
        networks=("identity", "features"),
        epochs=0.5,
    ),
)

PHASES = tuple(phase.name for phase in _ALL)
"""In the order in which they are trained."""
EXPERTS = tuple(phase.expert for phase in _ALL if phase.expert is not None)


def phase_facts(name: str) -> Phase:
    """The phase of that name, or UserError."""
    for phase in _ALL:
        if phase.name == name:
            return phase
    raise UserError(f"unknown phase {name!r}; choose one of: {', '.join(PHASES)}")


def expert_of(name: str) -> str | None:
    """The adapter that a phase trains; None for one that trains all weights."""
    return phase_facts(name).expert


def inpaints(name: str) -> bool:
    """Whether a phase hides the mouth and trains on clips; else it trains on pairs."""
    return phase_facts(name).inpaints
