"""Interface between a denoiser and all other code: conditions once a window, a velocity at every noise level.

Training, sampling, planning and adapters use a `Backbone` and never name its class. `xdub.model.build` constructs the
backbone that a recipe and a phase need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from xdub.config import Policy, TokenOrder
from xdub.files.weight_folder import WeightFolder, check_fit, check_values
from xdub.geometry import CodecGeometry
from xdub.model.sequence import ONE_RANK, SequenceGroup, SharesSequence
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
        self.group = ONE_RANK
        """Ranks that share the tokens of a sample; see `share_sequence`."""

    def share_sequence(self, group: SequenceGroup) -> None:
        """Compute one rank's share of every sample from now on; all ranks of ``group`` call the network together.

        Inputs and outputs are whole on every rank.
        """
        self.group = group
        for module in self.modules():
            if isinstance(module, SharesSequence):
                module.group = group

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

    def addition(self, name: str) -> bool:
        """Return whether a tensor is new beside the open weights that the network starts from."""
        return False

    def own_tensor(self, name: str, value: Tensor) -> tuple[str, Tensor] | None:
        """Return a tensor of another origin under this network's name and in its shape.

        None: this network does not need the tensor. Subclasses override the method for weights of another phase and of
        upstream releases. ``value`` may be on the meta device.
        """
        return name, value

    def optional_names(self, names: Set[str]) -> frozenset[str]:
        """Return the names of this network that weights with ``names`` need not have; the others keep their values."""
        return frozenset()

    def load_upstream(
        self, weights: WeightFolder, dtype: torch.dtype | None = torch.float32, *, whole: bool = False
    ) -> None:
        """Load weights of this network, of another phase or of an upstream release, one tensor at a time.

        Args:
            weights: files of the weights.
            dtype: number format of the tensors that are on the meta device; None: that of the files. The others keep
                their own.
            whole: no tensor is optional.

        UserError names the first tensor that is missing, left over, of another shape, of whole numbers, or not finite.
        """
        theirs = {}
        for name, shape in weights.shapes.items():
            own_tensor = self.own_tensor(name, torch.empty(shape, device="meta"))
            if own_tensor is not None:
                theirs[own_tensor[0]] = tuple(own_tensor[1].shape)
        own = self.state_dict()
        shapes = {name: tuple(value.shape) for name, value in own.items()}
        optional = frozenset[str]() if whole else self.optional_names(theirs.keys())
        check_fit(weights.path, theirs, shapes, optional)
        for name, value in weights.tensors():
            own_tensor = self.own_tensor(name, value)
            if own_tensor is None:
                continue
            name, value = own_tensor
            check_values(weights.path, name, value)
            if own[name].is_meta:
                # The whole network's `load_state_dict` would visit all modules for every tensor.
                module, _, tensor = name.rpartition(".")
                converted = value.to(dtype or value.dtype)
                self.get_submodule(module).load_state_dict({tensor: converted}, strict=False, assign=True)
            else:
                own[name].copy_(value)
