"""Interface between a denoiser and all other code: conditions once a window, a velocity at every noise level.

Training, sampling, planning and adapters use a `Backbone` and never name its class. `xdub.model.build` constructs the
backbone that a recipe and a phase need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from xdub.config import Policy, TokenOrder
from xdub.errors import UserError
from xdub.geometry import CodecGeometry
from xdub.speech_windows import SpeechForm

ConditionsT = TypeVar("ConditionsT")
"""A backbone's own class of conditions, whose fields other code does not read."""


class Backbone(nn.Module, ABC, Generic[ConditionsT]):
    """Base class of the networks that predict v = eps - z_0 of the target frames (Eq. 5).

    B batch, C latent channels, f target frames, r reference frames, h w latent size, T audio rows.
    """

    lora_targets: ClassVar[tuple[str, ...]]
    """Endings of the names of linear layers within `blocks` that can have an adapter."""

    parts: ClassVar[Mapping[str, str]]
    """Module in a block -> row of the plan's table for the products of its layers, and of attention to other rows."""
    self_attentions: ClassVar[Mapping[str, str]]
    """Module in a block -> row of the plan's table for the two products of its softmax(q k^T) v over the sequence."""

    blocks: nn.ModuleList
    """The transformer blocks. Adapters, checkpointing and weight gathering act on these alone."""

    def __init__(self, geometry: CodecGeometry, *, masked_input: bool, order: TokenOrder) -> None:
        super().__init__()
        self.geometry = geometry
        """Channels, and factors of time and space, of the codec whose latents the network reads and writes."""
        self.masked_input = masked_input
        """True for a generator, which needs z_mask and one reference frame (B.2); False for an editor."""
        self.order: TokenOrder = order
        """Segment of the token sequence that comes first."""
        self.speech: SpeechForm = "frames"
        """Form of the rows of audio features that the network reads (`xdub.speech_windows`)."""
        self.checkpointing: Policy = "none"
        """Checkpoint policy of train mode; see `xdub.model.checkpointing`."""

    def reference_frames(self, target_frames: int) -> int:
        """Return r for f target frames: one frame for a generator, a whole window for an editor."""
        return 1 if self.masked_input else target_frames

    @abstractmethod
    def conditions(
        self,
        z_ref: Tensor,
        audio: Tensor,
        starts: Tensor,
        *,
        z_mask: Tensor | None = None,
        motion_frames: Tensor | int = 0,
        audio_enabled: Tensor | None = None,
        text: Tensor | None = None,
        reuse: bool = True,
    ) -> ConditionsT:
        """Compute everything that depends on neither z_t nor t. Raise ValueError if an input does not fit the network.

        The active expert's weights are part of the result: build new conditions after a switch.

        Args:
            z_ref: [B, C, r, h, w] reference latents.
            audio: [B, T, audio_dim] features of the window and its margins in the form `speech`.
            starts: int [f], first audio row of each latent frame.
            z_mask: [B, C, f, h, w] latents of the masked window, exactly when `masked_input` is set.
            motion_frames: number of clean latent frames at the start of the window, an int or [B].
            audio_enabled: bool [B], False where a sample's audio attention is off. None: on for all.
            text: [B, S, text_dim] embedded prompt. None: the learned null prompt.
            reuse: True shares work between steps, for sampling. False computes as training does, so that every
                parameter takes part in every step and blocks can be recomputed.
        """

    @abstractmethod
    def velocity(self, z_t: Tensor, t: Tensor, conditions: ConditionsT) -> Tensor:
        """Return v_hat [B, C, f, h, w] of z_t [B, C, f, h, w] (motion frames clean) at t [B] in [0, 1].

        The network applies t = 0 to motion and reference frames itself.
        """

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        z_ref: Tensor,
        audio: Tensor,
        starts: Tensor,
        *,
        z_mask: Tensor | None = None,
        motion_frames: Tensor | int = 0,
        audio_enabled: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Tensor:
        """Return the velocity of one training step; arguments as in `conditions` and `velocity`."""
        conditions = self.conditions(
            z_ref,
            audio,
            starts,
            z_mask=z_mask,
            motion_frames=motion_frames,
            audio_enabled=audio_enabled,
            text=text,
            reuse=False,
        )
        return self.velocity(z_t, t, conditions)

    def own_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of another origin under this network's names and shapes.

        Subclasses override it for weights of another phase and of upstream releases. The default changes nothing.
        """
        return dict(state)

    def load_upstream(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load weights of this network, of another phase or of an upstream release.

        UserError names ``source`` and the tensors that do not fit.
        """
        state, own = self.own_weights(state), self.state_dict()
        for name, value in state.items():
            if name in own and own[name].shape != value.shape:
                raise UserError(
                    f"{source}: {name} has shape {tuple(value.shape)}, the recipe's model has {tuple(own[name].shape)}"
                )
        missing, unexpected = self.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise UserError(
                f"{source} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}"
            )
