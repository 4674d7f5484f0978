"""Phase 3, the lip expert (3.3): a LoRA at mid noise, with a synchronisation loss on decoded frames (Eq. 12)."""

from __future__ import annotations

from torch import nn

from xdub.data.batch import Batch
from xdub.geometry import SAMPLES_PER_FRAME, SOUND_MARGIN
from xdub.losses.single_step import single_step_video
from xdub.losses.terms import LossTerm, LossTerms
from xdub.train.phases.common import PhaseContext, draw_noise, draw_slices, flow_loss, predict


def loss(model: nn.Module, batch: Batch, ctx: PhaseContext) -> LossTerms:
    """Return Eq. 1 + sync_weight * BCE(match, 1); Eq. 12 as printed would reward lips out of sync."""
    assert ctx.sync is not None, "the lip expert needs the sync network"
    noised = draw_noise(batch, ctx)
    v_hat = predict(model, batch, noised)
    flow = flow_loss(v_hat, batch, noised, ctx)
    estimate = single_step_video(
        ctx.codec,
        batch["z0"],
        noised.eps,
        v_hat,
        noised.t,
        starts=draw_slices(batch, noised, ctx),
        motion_latents=noised.motion_latents,
        t_thres=ctx.phase.t_thres,
        decode_latents=ctx.phase.decode_latents,
    )
    margin = SOUND_MARGIN * SAMPLES_PER_FRAME
    sound = estimate.rows(batch["sound"], per_frame=SAMPLES_PER_FRAME, margin=margin)
    landmarks = estimate.rows(batch["landmarks"], per_frame=1)
    windows = ctx.sync.sync_loss(estimate.video, sound, landmarks)  # [B, W]
    sync = LossTerm(mean=windows.mean(), per_sample=windows.detach().mean(1), t=noised.t)
    return LossTerms(total=flow.mean + ctx.phase.sync_weight * sync.mean, terms={"flow": flow, "sync": sync})
