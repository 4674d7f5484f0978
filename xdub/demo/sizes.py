"""Sizes and steps of the demo that fit a quarter of an hour on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

WARM_MINUTES = 12.0
"""Minutes of a demo that continues from the shipped weights."""
SCRATCH_MINUTES = 20.0
"""Minutes of a demo that trains from random weights."""


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """Sizes of one demo, written to its record when it begins; a restart reads them from the record."""

    recipe: str = "tiny"
    """Name of the recipe that the overrides change."""
    overrides: tuple[str, ...] = ()
    """Recipe settings `section.key=value`, steps of the phases among them."""
    clips: int = 40
    """Rendered training clips; each has a twin with other speech."""
    heldout: int = 10
    """Cases that are dubbed and measured."""
    heldout_frames: int = 57
    """Length of a case."""
    silent: int = 4
    """Number of cases that are also dubbed with silence."""
    full_size: int = 256
    """Side of the held-out videos in px."""
    pair_workers: int = 2
    """Processes that generate pairs."""
    local: bool = False
    """True: this process trains and generates pairs itself, without Ray."""
    expected: Mapping[str, float] = field(default_factory=dict)
    """Stage -> expected seconds on two cores, for the display."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan in the form of demo.json."""
        return {**asdict(self), "overrides": list(self.overrides)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DemoPlan:
        """Rebuild a plan from the output of `to_dict`."""
        fields: dict[str, Any] = {**values, "overrides": tuple(values["overrides"])}
        return cls(**fields)


STEP_SECONDS = {"generator": 1.3, "editor": 1.8, "lip": 1.9, "texture": 3.1}
"""Phase -> seconds of a training step of the tiny recipe on two cores."""
START_SECONDS = 40.0
"""Seconds that a phase needs to start: processes, networks, the first batch."""
CLIP_SECONDS, PAIR_SECONDS = 1.4, 0.38
"""Seconds to render a clip with its twin in two processes, and to generate and judge a pair with two workers."""
PAIRS_PER_CLIP = 2.9
"""Pairs per clip: the clip and its twin, each dubbed by the generator, plus the exact pairs."""
SHARES = {"generator": 0.45, "editor": 0.39, "lip": 0.08, "texture": 0.08}
"""Phase -> share of the training time of a demo from scratch; the generator has to learn faces first."""
WARM_STEPS = {"generator": 100, "editor": 100, "lip": 30, "texture": 30}
"""Phase -> steps of a demo that starts from the shipped weights."""
WARM_LR = {"generator": 1e-4, "editor": 1e-4, "lip": 5e-5, "texture": 5e-5}
"""Phase -> learning rate from the shipped weights; the recipe's rate would first undo the earlier training."""
WARM_CLIPS, SCRATCH_CLIPS = 40, 72
"""Rendered training clips from the shipped weights, and from scratch."""


def default_plan(*, from_scratch: bool, minutes: float | None = None) -> DemoPlan:
    """Return the plan of `xdub demo`. ``minutes`` is the time budget on two cores; None selects the default."""
    clips = SCRATCH_CLIPS if from_scratch else WARM_CLIPS
    plan = DemoPlan(clips=clips)
    fixed = _fixed_seconds(plan)
    budget = (minutes or (SCRATCH_MINUTES if from_scratch else WARM_MINUTES)) * 60 - sum(fixed.values())
    if from_scratch:
        steps = {phase: max(20, int(share * budget / STEP_SECONDS[phase])) for phase, share in SHARES.items()}
        rates = []
    else:
        usual = sum(WARM_STEPS[phase] * STEP_SECONDS[phase] for phase in WARM_STEPS)
        factor = 1.0 if minutes is None else max(0.1, budget / usual)
        steps = {phase: max(10, int(count * factor)) for phase, count in WARM_STEPS.items()}
        rates = [f"phases.{phase}.lr={rate}" for phase, rate in WARM_LR.items()]
    settings = [f"phases.{phase}.steps={count}" for phase, count in steps.items()]
    settings += [f"phases.{phase}.warmup={min(50, count // 5)}" for phase, count in steps.items()]
    # A checkpoint every 30 s, so that a kill costs half a minute.
    settings += [
        f"phases.{phase}.checkpoint_every={max(5, round(30 / STEP_SECONDS[phase]))}" for phase in steps
    ]
    expected = {name: fixed[name] + steps.get(name, 0) * STEP_SECONDS.get(name, 0.0) for name in fixed}
    return DemoPlan(clips=clips, overrides=(*settings, *rates), expected=expected)


def _fixed_seconds(plan: DemoPlan) -> dict[str, float]:
    """Return stage -> seconds on two cores, without the training steps."""
    dubbed = plan.heldout + plan.silent
    return {
        "render": 9 + plan.clips * CLIP_SECONDS,
        "held-out": 5 + plan.heldout * plan.heldout_frames / 45 * CLIP_SECONDS,
        "generator": START_SECONDS,
        "pairs": 15 + plan.clips * PAIRS_PER_CLIP * PAIR_SECONDS,
        "editor": START_SECONDS,
        "lip": START_SECONDS,
        "texture": START_SECONDS,
        "bundle": 1.0,
        "dub generator": 5 + 3.4 * dubbed,
        "dub editor": 5 + 3.9 * dubbed,
        "evaluate": 10.0,
        "report": 2.0,
    }
