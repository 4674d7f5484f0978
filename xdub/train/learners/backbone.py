"""Phases of the model: generator, editor, and the experts' adapters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from xdub.config import check_phase
from xdub.data.latent_cache.folder import reads_cache
from xdub.data.latents import encode_batch
from xdub.data.samples import StreamSpec
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.backbone import Backbone
from xdub.model.codec import Codec
from xdub.model.sequence import ONE_RANK, SequenceGroup
from xdub.plan.flops import train_step_flops
from xdub.plan.network import count_parameters
from xdub.plan.shapes import shapes
from xdub.plan.storage import checkpoint_bytes
from xdub.train.learners.base import Encode, Learner
from xdub.train.networks import build_loss_context, build_model
from xdub.train.show.strip_sampler import StripSampler
from xdub.train.sync_gate import sync_objection
from xdub.train.trainer import Sampler


class BackboneLearner(Learner):
    """A phase of the model."""

    group = ONE_RANK
    """Ranks that share the samples."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step."""
        return self.recipe.for_phase(self.phase).global_batch * shapes(self.recipe, self.phase).tokens

    def checkpoint_bytes(self) -> float:
        """Estimate the bytes of one checkpoint."""
        return checkpoint_bytes(self.recipe, self.phase, count_parameters(self.recipe, self.phase))

    def step_flops(self) -> float | None:
        """Count the model FLOPs of one step."""
        return train_step_flops(self.recipe, self.phase)

    def check(self, world_size: int) -> None:
        """Raise UserError for settings with which the phase cannot train on any number of workers."""
        check_phase(self.recipe, self.phase)

    def build(self, codec: Codec, *, base: str | None, init_from: str | None) -> nn.Module:
        """Build the backbone, with the phase's adapter."""
        return build_model(self.recipe, self.phase, codec, base=base, init_from=init_from)

    def share_sequence(self, model: nn.Module, group: SequenceGroup) -> None:
        """Let the ranks of ``group`` compute every sample of the backbone together."""
        assert isinstance(model, Backbone)
        model.share_sequence(group)
        self.group = group

    def encoder(self, codec: Codec, device: torch.device) -> Encode:
        """Return the function that computes latents and audio features, or moves cached ones to the device."""
        cached = reads_cache(self.recipe, self.phase)
        audio_encoder = None if cached else load_audio_encoder(self.recipe.audio).to(device)
        return functools.partial(
            encode_batch,
            codec=codec,
            audio_encoder=audio_encoder,
            device=device,
            speech=self.recipe.model.speech,
            compute_all=functools.partial(self.group.compute, device=device),
        )

    def loss_context(self, codec: Codec, device: torch.device) -> Any:
        """Return the settings and frozen networks of the phase's losses."""
        return build_loss_context(self.recipe, self.phase, codec, device)

    def objection(self, context: Any, spec: StreamSpec, codec: Codec, device: torch.device) -> str | None:
        """Return why the sync loss cannot be trusted on the data, if the phase has one."""
        config = self.recipe.phase(self.phase)
        if context.sync is None or not config.sync_accuracy:
            return None
        frames = codec.geometry.frames(config.decode_latents)
        return sync_objection(context.sync, spec, codec, device, frames=frames, least=config.sync_accuracy)

    def sampler(self, data: Sequence[str]) -> Sampler | None:
        """Return the function that draws film strips, if the recipe has them."""
        train = self.recipe.for_phase(self.phase)
        return StripSampler(self.recipe, self.phase, data) if train.sample_every else None
