"""What all phases share: noise decided by the sample, the conditioned forward pass, the weighted flow loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xdub.diffusion.flow_matching import add_noise
from xdub.diffusion.timesteps import sample_timesteps
from xdub.losses.terms import LossTerm
from xdub.model.codec import Codec
from xdub.seeding import torch_rng
from xdub_kernels import weighted_flow_loss


@dataclass(frozen=True, kw_only=True)
class PhaseContext:
    """Everything a loss needs besides model and batch. Frozen networks are None where the phase has no use for them."""

    phase: Any
    """The recipe's PhaseConfig."""
    seed: int
    codec: Codec
    sync: Any = None
    """`xdub.perception.syncnet.SyncNet`"""
    identity: Any = None
    """[N, 3, H, W] face crops -> [N, d] embedding"""
    features: Any = None
    """[N, 3, H, W] face crops -> [N, d] image features"""


@dataclass(frozen=True, kw_only=True)
class Noised:
    """A batch with its noise: eps, z_t [B, C, f, h, w]; t [B]; motion_frames [B] clean latents at the start."""

    eps: Tensor
    z_t: Tensor
    t: Tensor
    motion_frames: Tensor
    coin: Tensor
    """[B] uniform numbers, for phase-specific choices such as silencing audio."""


def draw_noise(batch: dict[str, Any], ctx: PhaseContext) -> Noised:
    """Noise, timestep and motion frames of every sample from (seed, epoch, sample id) alone.

    They do not depend on the sample's place in the batch, on the world size, or on what ran before.
    """
    z0, cfg = batch["z0"], ctx.phase
    motion_latents = ctx.codec.geometry.latent_frames(cfg.motion_frames)
    eps, t, coins = [], [], []
    for i, (epoch, sample_id) in enumerate(zip(batch["epochs"].tolist(), batch["sample_id"], strict=True)):
        generator = torch_rng(ctx.seed, epoch, sample_id, "noise")
        t.append(sample_timesteps(1, cfg.alpha, generator))
        coins.append(torch.rand(2, generator=generator))
        eps.append(torch.randn(z0[i].shape, generator=generator))
    coin = torch.stack(coins)
    motion = torch.where(coin[:, 0] < cfg.motion_prob, motion_latents, 0)
    eps_, t_ = torch.stack(eps).to(z0), torch.cat(t).to(z0)
    return Noised(
        eps=eps_,
        z_t=add_noise(z0, eps_, t_, motion_frames=motion),
        t=t_,
        motion_frames=motion.to(z0.device),
        coin=coin[:, 1].to(z0.device),
    )


def predict(model, batch: dict[str, Any], noised: Noised, audio_enabled: Tensor | None = None) -> Tensor:
    """v_hat of the model under the batch's conditions."""
    return model(
        noised.z_t,
        noised.t,
        batch["z_ref"],
        batch["audio"],
        batch["starts"],
        z_mask=batch.get("z_mask"),
        motion_frames=noised.motion_frames,
        audio_enabled=audio_enabled,
    )


def flow_loss(v_hat: Tensor, batch: dict[str, Any], noised: Noised, ctx: PhaseContext) -> LossTerm:
    """Eq. 1: mask-weighted flow matching, averaged over the elements that are not motion frames."""
    loss, sums, numbers = weighted_flow_loss(
        v_hat,
        batch["z0"],
        noised.eps,
        batch["face_mask"],
        batch["lip_mask"],
        face_weight=ctx.phase.face_weight,
        lip_weight=ctx.phase.lip_weight,
        motion_frames=noised.motion_frames,
        per_sample=True,
    )
    return LossTerm(mean=loss, per_sample=sums / numbers, t=noised.t)
