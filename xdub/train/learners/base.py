"""The part of a phase that depends on the network that it trains; the loop and all records are the same for each.

A `Learner` builds the network, turns a stream's batches into its inputs, names its losses, and measures the result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xdub.config import Recipe
from xdub.data.batch import RawBatch, Samples
from xdub.data.samples import StreamSpec
from xdub.errors import UserError
from xdub.model.codec import Codec
from xdub.model.sequence import SequenceGroup
from xdub.train.trainer import Sampler

Encode = Callable[[RawBatch], Samples]
"""A stream's batch -> the inputs of the phase's loss, on the rank's device."""


class Learner(ABC):
    """Dependencies of a phase on the network that it trains."""

    def __init__(self, recipe: Recipe, phase: str) -> None:
        self.recipe, self.phase = recipe, phase

    @property
    @abstractmethod
    def tokens_per_step(self) -> int:
        """Tokens of one step, for the speed in the tracker; 0 for a network without tokens."""

    @abstractmethod
    def checkpoint_bytes(self) -> float:
        """Estimate the bytes of one checkpoint."""

    @abstractmethod
    def step_flops(self) -> float | None:
        """Count the model FLOPs of one step; None if the planner does not know the network."""

    def check(self, world_size: int) -> None:
        """Raise UserError for settings with which so many workers cannot train the network."""
        return

    @abstractmethod
    def build(self, codec: Codec, *, base: str | None, init_from: str | None) -> nn.Module:
        """Build the network in train mode; the phase trains the parameters with requires_grad."""

    def share_sequence(self, model: nn.Module, group: SequenceGroup) -> None:
        """Let the ranks of ``group`` encode and compute every sample of ``model`` together.

        Raise UserError for a network without tokens.
        """
        raise UserError(no_tokens(self.phase, group.size))

    @abstractmethod
    def encoder(self, codec: Codec, device: torch.device) -> Encode:
        """Return the function that turns a stream's batch into the loss's inputs."""

    @abstractmethod
    def loss_context(self, codec: Codec, device: torch.device) -> Any:
        """Return the third argument of the phase's loss."""

    def objection(self, context: Any, spec: StreamSpec, codec: Codec, device: torch.device) -> str | None:
        """Return why the phase should not train on the data with its frozen networks; None if it may.

        ``context`` is the result of `loss_context`.
        """
        return None

    def sampler(self, data: Sequence[str]) -> Sampler | None:
        """Return the function that draws film strips, if the network draws pictures."""
        return None

    def metadata(self) -> dict[str, str] | None:
        """Return the header of the exported file, for a network whose file must describe itself."""
        return None

    def assess(
        self, weights: Path, data: Sequence[str], codec: Codec, device: torch.device, beat: Callable[[], None]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Measure exported weights on rank 0; return entries of the phase's result, and metrics of its last step.

        ``beat`` reports progress to the watchdog.
        """
        return {}, {}


def no_tokens(phase: str, sequence_parallel: int) -> str:
    """Return the message about workers that cannot share the samples of a phase."""
    return (
        f"{phase}.sequence_parallel={sequence_parallel}: the network has no tokens that workers could share; "
        f"use {phase}.sequence_parallel=1"
    )
