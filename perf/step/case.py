"""Problems at which a step is measured, and the plan's prediction for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from xdub.config import Policy, Recipe, expert_of
from xdub.config.sections import MAX_SIZE
from xdub.plan.flops import ENCODED, step_parts, train_step_flops
from xdub.plan.gpus import Gpu
from xdub.plan.memory import memory
from xdub.plan.network import count_network
from xdub.plan.phase_plan import planned_recipe
from xdub.plan.rehearsal import activations
from xdub.plan.shapes import shapes
from xdub_kernels.dispatch import CAPABILITIES

STILL = ("train.lr=1e-12", "train.warmup=0")
"""Settings that keep the weights unchanged, so that every step of every implementation is the same problem."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One step's problem, at which implementations compete."""

    recipe: Recipe
    """Recipe with picture size and training settings of the case."""
    phase: str
    """Phase whose loss is computed."""
    overrides: tuple[str, ...]
    """The user's changes of the recipe, as SECTION.KEY=VALUE."""

    @property
    def policy(self) -> Policy:
        """Policy of activation checkpointing."""
        return self.recipe.for_phase(self.phase).activation_checkpointing

    @property
    def compiled(self) -> bool:
        """True if the model is compiled."""
        return self.recipe.for_phase(self.phase).compile

    @property
    def tokens(self) -> int:
        """Tokens of one sample."""
        return shapes(self.recipe, self.phase).tokens

    @property
    def batch(self) -> int:
        """Samples of a step."""
        return self.recipe.for_phase(self.phase).global_batch

    def facts(self) -> dict[str, Any]:
        """Return the fields that describe the case in its rows, with the key of `perf compare`."""
        train = self.recipe.for_phase(self.phase)
        return {
            "kernel": "step",
            "shape": f"{self.recipe.name} {self.phase} {self.batch} x {self.tokens}",
            "mode": self.policy + (" compiled" if self.compiled else ""),
            "dtype": {"bf16": "bfloat16", "fp32": "float32"}[train.precision],
            "recipe": self.recipe.name,
            "set": list(self.overrides),
            "phase": self.phase,
            "window": self.recipe.phase(self.phase).window,
            "side": self.recipe.video.size,
            "blocks": self.recipe.model.num_layers,
            "tokens": self.tokens,
            "micro_batch": self.batch,
            "checkpointing": self.policy,
            "compile": self.compiled,
            "zero_stage": train.zero_stage,
        }


def cases(
    name: str,
    phase: str,
    *,
    tokens: Sequence[int],
    policies: Sequence[str],
    compiled: Sequence[bool],
    micro_batch: int,
    zero_stage: int,
    overrides: Sequence[str],
) -> Iterator[Case]:
    """Yield all combinations; cases that share an engine follow each other. Raises ``UserError`` for a wrong recipe."""
    for on in compiled:
        for target in tokens:
            for policy in policies:
                settings = {
                    "micro_batch": micro_batch,
                    "global_batch": micro_batch,
                    "zero_stage": zero_stage,
                    "compile": str(on).lower(),
                    "activation_checkpointing": policy,
                }
                ours = [*STILL, *(f"train.{key}={value}" for key, value in settings.items())]
                recipe = planned_recipe(name, [*overrides, *ours], 1)
                yield Case(recipe=at_tokens(recipe, phase, target), phase=phase, overrides=tuple(overrides))


def at_tokens(recipe: Recipe, phase: str, target: int) -> Recipe:
    """Return the recipe at the picture size whose samples are nearest to ``target`` tokens."""
    step = recipe.codec.geometry.space * max(recipe.model.patch[1:])
    sized = [
        replace(recipe, video=replace(recipe.video, size=side)) for side in range(step, MAX_SIZE + 1, step)
    ]
    return min(sized, key=lambda candidate: abs(shapes(candidate, phase).tokens - target))


def prediction(case: Case, gpu: Gpu | None, efficiency: float) -> dict[str, Any]:
    """Return the plan of a step on latents, without the codec and without the plan's reserve, which no allocator sees.

    Milliseconds follow from ``efficiency``, a share of the peak of ``gpu``; None without a GPU.
    """
    recipe, phase = case.recipe, case.phase
    network = count_network(recipe, phase)
    capability = gpu.capability if gpu else CAPABILITIES[-1]
    sample = activations(recipe, phase, case.policy, 1, capability=capability)
    parts = memory(recipe, phase, network.parameters, sample, gpus=1)
    allocated = parts.total - parts.reserve - (0 if expert_of(phase) else parts.frozen_networks)
    flops = {part: value for part, value in step_parts(recipe, phase, network).items() if part != ENCODED}
    seconds = sum(flops.values()) / (gpu.tflops * 1e12 * efficiency) if gpu else None
    return {
        "gpu": gpu.name if gpu else None,
        "efficiency": efficiency,
        "ms": None if seconds is None else 1e3 * seconds,
        "allocated_bytes": allocated,
        "memory": asdict(parts),
        "flops": flops,
        "model_flops": train_step_flops(recipe, phase, network),
    }
