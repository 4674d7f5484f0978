"""Phase 4, the texture expert (3.3): a LoRA at low noise.

Audio is off for half of the samples, and the identity and feature losses act on those alone: without speech, the
output should be the reference's picture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xdub.data.batch import Batch
from xdub.losses.identity import cosine_to_reference
from xdub.losses.single_step import decode_slices, single_step_video
from xdub.losses.terms import LossTerm, LossTerms
from xdub.train.phases.common import PhaseContext, draw_noise, draw_slices, flow_loss, predict


def loss(model: nn.Module, batch: Batch, ctx: PhaseContext) -> LossTerms:
    """Return Eq. 13: Eq. 1, and identity_weight (1 - cos identity) + clip_weight (1 - cos features) if silent."""
    assert ctx.identity is not None and ctx.features is not None, "the texture expert needs both networks"
    config = ctx.phase
    noised = draw_noise(batch, ctx)
    silent = noised.coin < config.silent_prob  # [B]
    v_hat = predict(model, batch, noised, audio_enabled=~silent)
    flow = flow_loss(v_hat, batch, noised, ctx)
    total, terms = flow.mean, {"flow": flow}
    if silent.any():
        starts = draw_slices(batch, noised, ctx)[silent]
        video = single_step_video(
            ctx.codec,
            batch["z0"][silent],
            noised.eps[silent],
            v_hat[silent],
            noised.t[silent],
            starts=starts,
            motion_latents=noised.motion_latents[silent],
            t_thres=config.t_thres,
            decode_latents=config.decode_latents,
        ).video
        with torch.no_grad():
            reference = decode_slices(ctx.codec, batch["z_ref"][silent], starts, config.decode_latents)
        identity = _distance(ctx.identity, video, reference, noised.t[silent])
        clip = _distance(ctx.features, video, reference, noised.t[silent])
        total = total + config.identity_weight * identity.mean + config.clip_weight * clip.mean
        terms |= {"identity": identity, "clip": clip}
    return LossTerms(total=total, terms=terms)


def _distance(embed: Callable[[Tensor], Tensor], video: Tensor, reference: Tensor, t: Tensor) -> LossTerm:
    cosine = cosine_to_reference(embed, video, reference)  # [n, frames]
    return LossTerm(mean=1 - cosine.mean(), per_sample=1 - cosine.detach().mean(1), t=t)
