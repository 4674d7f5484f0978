"""Phase 3, the lip expert (3.3): a LoRA at mid noise, with a synchronisation loss on decoded frames (Eq. 12)."""

from __future__ import annotations

from torch import nn

from xdub.data.batch import Batch
from xdub.losses.single_step import single_step_video
from xdub.losses.terms import LossTerm, LossTerms
from xdub.train.phases.common import PhaseContext, draw_noise, flow_loss, predict


def loss(model: nn.Module, batch: Batch, ctx: PhaseContext) -> LossTerms:
    """Return Eq. 1 + sync_weight * BCE(match, 1); Eq. 12 as printed would reward lips out of sync."""
    assert ctx.sync is not None, "the lip expert needs the sync network"
    noised = draw_noise(batch, ctx)
    v_hat = predict(model, batch, noised)
    flow = flow_loss(v_hat, batch, noised, ctx)
    video = single_step_video(
        ctx.codec,
        batch["z0"],
        noised.eps,
        v_hat,
        noised.t,
        t_thres=ctx.phase.t_thres,
        decode_latents=ctx.phase.decode_latents,
    )
    windows = ctx.sync.sync_loss(video, batch["audio"])  # [B, W]
    sync = LossTerm(mean=windows.mean(), per_sample=windows.detach().mean(1), t=noised.t)
    return LossTerms(total=flow.mean + ctx.phase.sync_weight * sync.mean, terms={"flow": flow, "sync": sync})
