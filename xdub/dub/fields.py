"""Velocity fields of a window: the network's own, and the guided one of three branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from xdub.config import GuidanceConfig
from xdub.diffusion import BRANCHES, guidance_weights, guided_velocity, rounded_time
from xdub.model.backbone import Backbone

Velocity = Callable[[Tensor, Tensor, Any], Tensor]
"""`Backbone.velocity`, or its compiled form."""


@dataclass(frozen=True, kw_only=True)
class FieldInputs:
    """Inputs of a batch of B windows that are the same at every noise level."""

    z_ref: Tensor
    """[B, C, r, h, w]."""
    audio: Tensor
    """[B, T, audio_dim]."""
    starts: Tensor
    """int [f], first audio row of each latent frame."""
    z_mask: Tensor | None = None
    """[B, C, f, h, w] for a generator."""
    motion_frames: int = 0
    """Clean latent frames at the start of the window."""


class Field(Protocol):
    """Velocity of z_t under the conditions of one expert at a time."""

    def prepare(self, inputs: FieldInputs) -> None:
        """Compute the conditions with the weights of the active expert; earlier conditions are freed first."""

    def at(self, t: float) -> None:
        """Set the time of the next evaluation."""

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return v_hat [B, C, f, h, w] of z_t at t [B]."""


class PlainField:
    """Field of the network itself."""

    def __init__(self, backbone: Backbone, velocity: Velocity) -> None:
        self._backbone, self._velocity = backbone, velocity
        self._conditions: Any = None

    def prepare(self, inputs: FieldInputs) -> None:
        """Compute the conditions of the batch."""
        self._conditions = None
        self._conditions = conditions_of(self._backbone, inputs)

    def at(self, t: float) -> None:
        """Do nothing: the network reads t itself."""

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the network's velocity."""
        return self._velocity(z_t, t, self._conditions)


class GuidedField:
    """Field of `xdub.diffusion.guidance`: three branches in one batch of 3B, or one after another.

    A branch without reference reads latents of zeros. In a branch without speech the speech of all samples is off,
    which each backbone does in its own way (`audio_enabled`). With ``rounded``, the weights follow the rounded time of
    the network.
    """

    def __init__(
        self, backbone: Backbone, velocity: Velocity, config: GuidanceConfig, *, rounded: bool = False
    ) -> None:
        self._backbone, self._velocity = backbone, velocity
        self._config, self._rounded = config, rounded
        self._conditions: list[Any] = []
        self._weights = (0.0, 0.0)

    def prepare(self, inputs: FieldInputs) -> None:
        """Compute the conditions of the branches none, reference and both."""
        self._conditions = []
        batch, device = len(inputs.audio), inputs.audio.device
        off, on = (torch.full((batch,), value, device=device) for value in (False, True))
        without = replace(inputs, z_ref=torch.zeros_like(inputs.z_ref))
        branches = [(without, off), (inputs, off), (inputs, on)]
        if self._config.batched:
            branches = [_joined(branches)]
        self._conditions = [conditions_of(self._backbone, branch, gate) for branch, gate in branches]

    def at(self, t: float) -> None:
        """Set the weights of time t."""
        self._weights = guidance_weights(self._config, rounded_time(t) if self._rounded else t)

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the combined velocity in fp32."""
        if self._config.batched:
            stacked = self._velocity(
                z_t.repeat(BRANCHES, 1, 1, 1, 1), t.repeat(BRANCHES), self._conditions[0]
            )
            none, reference, both = stacked.float().chunk(BRANCHES)
        else:
            none, reference, both = (self._velocity(z_t, t, c).float() for c in self._conditions)
        return guided_velocity((none, reference, both), self._weights)


def conditions_of(backbone: Backbone, inputs: FieldInputs, audio_enabled: Tensor | None = None) -> Any:
    """Return the backbone's conditions of a batch."""
    return backbone.conditions(
        inputs.z_ref,
        inputs.audio,
        inputs.starts,
        z_mask=inputs.z_mask,
        motion_frames=inputs.motion_frames,
        audio_enabled=audio_enabled,
    )


def _joined(branches: list[tuple[FieldInputs, Tensor]]) -> tuple[FieldInputs, Tensor]:
    """Return all branches as one batch, in their order."""
    parts, gates = zip(*branches, strict=True)
    masks = [part.z_mask for part in parts if part.z_mask is not None]
    joined = replace(
        parts[0],
        z_ref=torch.cat([part.z_ref for part in parts]),
        audio=torch.cat([part.audio for part in parts]),
        z_mask=torch.cat(masks) if masks else None,
    )
    return joined, torch.cat(gates)
