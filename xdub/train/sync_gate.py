"""Check that a SyncNet recognises speech in the data at hand; a loss of one that does not would only add noise."""

from __future__ import annotations

import math

import torch

from xdub.data.samples import SampleMaker, StreamSpec
from xdub.model.codec import Codec
from xdub.perception.syncnet.base import SyncExpert
from xdub.train.syncnet_batch import accuracy_through_codec

SAMPLES = 48
"""Largest number of samples that are measured."""
BATCH = 8
"""Samples that are measured together."""


def sync_objection(
    network: SyncExpert,
    spec: StreamSpec,
    codec: Codec,
    device: torch.device,
    *,
    frames: int,
    least: float,
) -> str | None:
    """Return why a phase should not train with a SyncNet; None if its accuracy is at least ``least``.

    The accuracy is the share of right choices between a window's own sound and other sound, on the first samples of
    the phase. Of each, the first ``frames`` frames pass through the codec, as in the sync loss.
    """
    maker = SampleMaker(spec.of_pixels())
    count = min(SAMPLES, len(maker.order))
    samples = [maker.sample(position) for position in range(count)]
    choice = accuracy_through_codec(network, samples, codec, BATCH, device, frames).choice
    if choice >= least:
        return None
    figure = (
        "has no sound to judge by"
        if math.isnan(choice)
        else f"chooses the right sound in {choice:.0%} of cases"
    )
    key = f"phases.{spec.phase}.sync_accuracy"
    return (
        f"{spec.phase}: the SyncNet {network.name} {figure} on {count} samples of the data (chance is 50%), and "
        f"{key}={least:g} is required: train one on such data (`xdub train syncnet`) and name it with "
        f"perception.sync_path, or set {key}=0"
    )
