"""Phase 1, the mask-inpainting generator (3.1): it predicts a clip from the masked clip, one other frame and audio."""

from __future__ import annotations

from torch import nn

from xdub.data.batch import Batch
from xdub.losses.terms import LossTerms
from xdub.train.phases.common import PhaseContext, draw_noise, flow_loss, predict


def loss(model: nn.Module, batch: Batch, ctx: PhaseContext) -> LossTerms:
    """Return Eq. 1 over all noise levels of Eq. 2 with the recipe's alpha."""
    noised = draw_noise(batch, ctx)
    flow = flow_loss(predict(model, batch, noised), batch, noised, ctx)
    return LossTerms(total=flow.mean, terms={"flow": flow})
