"""How much the demo does: sizes and steps that fit a quarter of an hour on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WARM_MINUTES = 12.0
SCRATCH_MINUTES = 20.0


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """Written into the demo's record when it begins; a restart reads it from there."""

    recipe: str = "tiny"
    overrides: tuple[str, ...] = ()
    """Recipe settings `section.key=value`, steps of the phases among them."""
    clips: int = 40
    """Rendered training clips; each has a twin with other speech."""
    heldout: int = 10
    """Cases that are dubbed and measured."""
    heldout_frames: int = 57
    silent: int = 4
    """How many of them are also dubbed with silence."""
    full_size: int = 256
    """px of the held-out videos."""
    local: bool = False
    """Train and make pairs in this process, without Ray."""
    expected: Mapping[str, float] | None = None
    """Stage -> seconds on two cores, for what is shown."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "overrides": list(self.overrides),
            "clips": self.clips,
            "heldout": self.heldout,
            "heldout_frames": self.heldout_frames,
            "silent": self.silent,
            "full_size": self.full_size,
            "local": self.local,
            "expected": dict(self.expected or {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DemoPlan:
        return cls(**{**values, "overrides": tuple(values["overrides"])})


STEP_SECONDS = {"generator": 0.45, "editor": 0.7, "lip": 1.1, "texture": 1.2}
"""Of the tiny recipe on two cores."""
AROUND = {
    "render": 70.0,
    "held-out": 45.0,
    "generator": 20.0,
    "pairs": 75.0,
    "editor": 15.0,
    "lip": 15.0,
    "texture": 15.0,
    "dub generator": 45.0,
    "dub editor": 60.0,
    "evaluate": 15.0,
    "report": 5.0,
}
"""Seconds of each stage beside training steps."""
SHARES = {"generator": 0.45, "editor": 0.39, "lip": 0.08, "texture": 0.08}
"""Of the training time. From nothing, the generator has to learn first what a face is."""
WARM_STEPS = {"generator": 100, "editor": 100, "lip": 30, "texture": 30}
WARM_LR = {"generator": 1e-4, "editor": 1e-4, "lip": 5e-5, "texture": 5e-5}
"""A trained model goes on gently: at the recipe's rate it would first forget."""


def default_plan(*, from_scratch: bool, minutes: float | None = None) -> DemoPlan:
    """The plan of `xdub demo`. ``minutes`` on two cores bounds the whole journey; None: the usual time."""
    if not from_scratch:
        share = (
            1.0 if minutes is None else max(0.1, _training_seconds(minutes) / _training_seconds(WARM_MINUTES))
        )
        steps = {phase: max(10, round(count * share)) for phase, count in WARM_STEPS.items()}
        rates = [f"phases.{phase}.lr={rate}" for phase, rate in WARM_LR.items()]
    else:
        seconds = _training_seconds(minutes or SCRATCH_MINUTES)
        steps = {
            phase: max(20, int(share * seconds / STEP_SECONDS[phase])) for phase, share in SHARES.items()
        }
        rates = []
    settings = [f"phases.{phase}.steps={count}" for phase, count in steps.items()]
    warmup = [f"phases.{phase}.warmup={min(50, count // 5)}" for phase, count in steps.items()]
    expected = {name: AROUND[name] + steps.get(name, 0) * STEP_SECONDS.get(name, 0.0) for name in AROUND}
    return DemoPlan(overrides=(*settings, *rates, *warmup), expected=expected)


def _training_seconds(minutes: float) -> float:
    return max(30.0, 60 * minutes - sum(AROUND.values()))
