"""Steps that all phases share: noise decided by the sample, the conditioned forward pass, the weighted flow loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from xdub.config import PhaseConfig
from xdub.data.batch import Batch
from xdub.diffusion.flow_matching import sample_timesteps
from xdub.losses.terms import LossTerm
from xdub.model.codec import Codec
from xdub.seeding import torch_rng
from xdub_kernels import add_noise, weighted_flow_loss


class SyncLoss(Protocol):
    """Frozen network of the lip expert, see `xdub.perception.syncnet.base.SyncExpert`."""

    def sync_loss(self, frames: Tensor, sound: Tensor, landmarks: Tensor) -> Tensor:
        """Return the loss [B, W] of the windows of a video.

        Args:
            frames: [B, 3, F, H, W].
            sound: [B, 640 (F + 50)], the sound of the frames and a second on either side.
            landmarks: [B, F, 68, 2].
        """
        ...


class Embeds(Protocol):
    """Frozen network of the texture expert."""

    def __call__(self, faces: Tensor) -> Tensor:
        """Return embeddings [N, d] of face crops [N, 3, H, W] in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class PhaseContext:
    """Arguments of a loss besides model and batch. A frozen network is None in a phase that does not use it."""

    phase: PhaseConfig
    seed: int
    codec: Codec
    sync: SyncLoss | None = None
    identity: Embeds | None = None
    features: Embeds | None = None
    """Network that computes image features of face crops."""


@dataclass(frozen=True, kw_only=True)
class Noised:
    """Noise, timesteps and motion frames that were drawn for a batch."""

    eps: Tensor
    """[B, C, f, h, w]."""
    z_t: Tensor
    """Noisy latents of Eq. 4, [B, C, f, h, w]."""
    t: Tensor
    """Timestep of every sample, [B]."""
    motion_latents: Tensor
    """Number of clean latents at the start, [B]."""
    coin: Tensor
    """Uniform numbers for a phase's own choices, such as silencing audio, [B]."""


def draw_noise(batch: Batch, ctx: PhaseContext) -> Noised:
    """Draw noise, timestep and motion frames of every sample from (seed, epoch, sample id) alone.

    The numbers do not depend on the sample's position in the batch, on the world size, or on earlier batches.
    """
    z0, config = batch["z0"], ctx.phase
    motion_latents = ctx.codec.geometry.latent_frames(config.motion_frames)
    eps, t, coins = [], [], []
    for i, (epoch, sample_id) in enumerate(zip(batch["epochs"].tolist(), batch["sample_id"], strict=True)):
        generator = torch_rng(ctx.seed, epoch, sample_id, "noise")
        t.append(sample_timesteps(1, config.alpha, generator))
        coins.append(torch.rand(2, generator=generator))
        eps.append(torch.randn(z0[i].shape, generator=generator))
    coin = torch.stack(coins)
    motion = torch.where(coin[:, 0] < config.motion_prob, motion_latents, 0).to(z0.device)
    noise, times = torch.stack(eps).to(z0), torch.cat(t).to(z0)
    return Noised(
        eps=noise,
        z_t=add_noise(z0, noise, times, motion_frames=motion),
        t=times,
        motion_latents=motion,
        coin=coin[:, 1].to(z0.device),
    )


def draw_slices(batch: Batch, noised: Noised, ctx: PhaseContext) -> Tensor:
    """Draw the latent int64 [B] from which pixel losses decode ``decode_latents`` latents of every sample.

    The draw is uniform and depends on (seed, epoch, sample id) alone. A slice begins at the last motion latent or
    later, so every frame after the motion frames is supervised, and of the motion frames at most the last one.
    """
    last = max(0, batch["z0"].shape[2] - ctx.phase.decode_latents)
    rows = zip(batch["epochs"].tolist(), batch["sample_id"], noised.motion_latents.tolist(), strict=True)
    starts = []
    for epoch, sample_id, motion in rows:
        generator = torch_rng(ctx.seed, epoch, sample_id, "slice")
        earliest = min(max(0, motion - 1), last)
        starts.append(torch.randint(earliest, last + 1, (1,), generator=generator))
    return torch.cat(starts).to(batch["z0"].device)


def predict(model: nn.Module, batch: Batch, noised: Noised, audio_enabled: Tensor | None = None) -> Tensor:
    """Return the model's velocity v_hat [B, C, f, h, w] under the batch's conditions."""
    return model(
        noised.z_t,
        noised.t,
        batch["z_ref"],
        batch["audio"],
        batch["starts"],
        z_mask=batch.get("z_mask"),
        motion_frames=noised.motion_latents,
        audio_enabled=audio_enabled,
    )


def flow_loss(v_hat: Tensor, batch: Batch, noised: Noised, ctx: PhaseContext) -> LossTerm:
    """Return Eq. 1: mask-weighted flow matching, averaged over the elements outside the motion frames."""
    loss, sums, numbers = weighted_flow_loss(
        v_hat,
        batch["z0"],
        noised.eps,
        batch["face_mask"],
        batch["lip_mask"],
        face_weight=ctx.phase.face_weight,
        lip_weight=ctx.phase.lip_weight,
        motion_frames=noised.motion_latents,
        per_sample=True,
    )
    return LossTerm(mean=loss, per_sample=sums / numbers, t=noised.t)
