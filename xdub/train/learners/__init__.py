"""The learner of each kind of network that a phase trains (`Phase.trains`)."""

from __future__ import annotations

from xdub.config import Recipe, phase_facts
from xdub.train.learners.backbone import BackboneLearner
from xdub.train.learners.base import Learner
from xdub.train.learners.syncnet import SyncNetLearner

_KINDS: dict[str, type[Learner]] = {"backbone": BackboneLearner, "syncnet": SyncNetLearner}


def learner_of(recipe: Recipe, phase: str) -> Learner:
    """Return the learner of a phase."""
    return _KINDS[phase_facts(phase).trains](recipe, phase)
