"""Phase 1, the mask-inpainting generator (3.1): a clip from its masked self, one other frame and its audio."""

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
