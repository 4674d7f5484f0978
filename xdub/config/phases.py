"""Training phases and the facts in which they differ.

A phase's losses are in `xdub/train/phases/<name>.py`, its numbers in the recipe's section `phases.<name>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdub.errors import UserError

Trained = Literal["backbone", "syncnet"]
"""Kind of network that a phase trains."""
Network = Literal["sync", "identity", "features"]
"""Role of a frozen network that a loss evaluates (`xdub.train.phases.common.PhaseContext`)."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Facts of one training phase."""

    name: str
    title: str
    """Words for the phase in the progress of `xdub bootstrap`."""
    trains: Trained = "backbone"
    """Kind of network that the phase trains. Phases of another network than the backbone are no part of the model: they
    have a recipe section of their own, and only `xdub train` runs them."""
    inpaints: bool = False
    """True: the network reads the clip with the mouth hidden and one other frame, and trains on clips. False: it reads
    an altered twin, frame for frame, and trains on pairs."""
    expert: str | None = None
    """Adapter that the phase trains on frozen weights. None: the phase trains the network itself, see
    `train.tune`."""
    starts_from: str | None = None
    """Phase whose weights this phase starts from; they stay frozen under an expert."""
    decodes: bool = False
    """True if a loss evaluates decoded frames (Eq. 11)."""
    silences: bool = False
    """True if a part of the samples has no audio attention; only those samples are then decoded."""
    networks: tuple[Network, ...] = ()
    """Frozen networks that the losses need."""
    epochs: float | None = None
    """Epochs over the paper's data (B.6). None: the paper has no such phase."""
    optional: bool = False
    """True if a recipe may omit the section; the phase is then not trained."""


_ALL = (
    Phase(name="generator", title="train the generator", inpaints=True, epochs=10.0, optional=True),
    Phase(name="editor", title="train the editor", starts_from="generator", epochs=2.0),
    Phase(
        name="lip",
        title="train the lip expert",
        expert="lip",
        starts_from="editor",
        decodes=True,
        networks=("sync",),
        epochs=0.5,
        optional=True,
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
        optional=True,
    ),
    Phase(name="syncnet", title="train the SyncNet", trains="syncnet", optional=True),
)

PHASES = tuple(phase.name for phase in _ALL if phase.trains == "backbone")
"""Names of the phases of the model in the order of training."""
TRAINABLE = tuple(phase.name for phase in _ALL)
"""Names of everything that `xdub train` trains."""
EXPERTS = tuple(phase.expert for phase in _ALL if phase.expert is not None)
"""Names of the adapters."""


def phase_facts(name: str) -> Phase:
    """Return the phase of that name. Raise UserError if there is none."""
    for phase in _ALL:
        if phase.name == name:
            return phase
    raise UserError(f"unknown phase {name!r}; choose one of: {', '.join(TRAINABLE)}")


def expert_of(name: str) -> str | None:
    """Return the adapter that a phase trains; None if the phase trains all weights."""
    return phase_facts(name).expert


def inpaints(name: str) -> bool:
    """Return whether a phase hides the mouth and trains on clips."""
    return phase_facts(name).inpaints


def needs_pairs(name: str) -> bool:
    """Return whether a phase trains on pairs; the other phases train on clips."""
    return in_model(name) and not phase_facts(name).inpaints


def in_model(name: str) -> bool:
    """Return whether a phase trains the model's network, with a section below `phases`."""
    return phase_facts(name).trains == "backbone"
