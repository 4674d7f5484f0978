"""FLOPs and memory of the backbone while it samples, counted on the real network on the meta device.

Networks of one block and of two are run, and every further block costs as much as the second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from xdub.config import Recipe
from xdub.plan.rehearsal import LiveBytes, inputs, meta_model, with_layers
from xdub.precision import dtype_of
from xdub_kernels.dispatch import CAPABILITIES, Capability, rehearsing_gpu


@dataclass(frozen=True, kw_only=True)
class ForwardFlops:
    """FLOPs of one window."""

    conditions: float
    """Everything that is the same at every noise level, computed once for each expert."""
    velocity: float
    """One evaluation of the velocity."""


@dataclass(frozen=True, kw_only=True)
class ForwardBytes:
    """Bytes of all windows of a batch."""

    kept: float
    """Conditions, which are alive during all steps."""
    working: float
    """Further bytes at the peak of one evaluation."""


def forward_flops(recipe: Recipe, phase: str, window: int) -> ForwardFlops:
    """Count the FLOPs of one window of ``window`` frames in the network of a phase; an expert's adapter is active."""
    # This import loads Triton, which takes seconds.
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for layers in (1, 2):
        model, arguments = _network(recipe, phase, window, layers, batch=1)
        z_t, t = arguments.pop("z_t"), arguments.pop("t")
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            conditions = model.conditions(**arguments)
            before = counter.get_total_flops()
            model.velocity(z_t, t, conditions)
        counts.append(ForwardFlops(conditions=before, velocity=counter.get_total_flops() - before))
    return ForwardFlops(**_extrapolated(counts[0], counts[1], recipe.model.num_layers))


def forward_bytes(
    recipe: Recipe, phase: str, window: int, batch: int, *, capability: Capability = CAPABILITIES[-1]
) -> ForwardBytes:
    """Count the bytes of ``batch`` windows of ``window`` frames without weights, on a GPU of a compute capability.

    ``capability`` as in `xdub.plan.rehearsal.activations`.
    """
    counts = []
    for layers in (1, 2):
        model, arguments = _network(recipe, phase, window, layers, batch=batch)
        z_t, t = arguments.pop("z_t"), arguments.pop("t")
        with rehearsing_gpu(capability), torch.no_grad(), LiveBytes() as live:
            conditions = model.conditions(**arguments)
            kept = live.now
            live.peak = live.now
            model.velocity(z_t, t, conditions)
        counts.append(ForwardBytes(kept=kept, working=live.peak - kept))
    kept = _extrapolated(counts[0], counts[1], recipe.model.num_layers)["kept"]
    return ForwardBytes(kept=kept, working=counts[-1].working)


def _network(
    recipe: Recipe, phase: str, window: int, layers: int, *, batch: int
) -> tuple[Any, dict[str, Any]]:
    """Return the network of a phase in eval mode with that many blocks, and the arguments of its forward pass."""
    section = replace(recipe.phase(phase), window=window)
    # A window may be longer than a clip, which is then mirrored.
    video = replace(recipe.video, clip_frames=max(recipe.video.clip_frames, window))
    shallow = with_layers(replace(recipe, video=video, phases={**recipe.phases, phase: section}), layers)
    model = meta_model(shallow, phase, dtype_of(recipe.for_phase(phase).precision))
    model.eval().requires_grad_(False)
    arguments = inputs(shallow, phase, batch, "meta")
    # Sampling never turns the audio attention off.
    arguments.pop("audio_enabled", None)
    return model, arguments


def _extrapolated(one: Any, two: Any, layers: int) -> Mapping[str, float]:
    """Return the fields of a network of ``layers`` blocks from those of one and of two blocks."""
    values = zip(vars(one), astuple(one), astuple(two), strict=True)
    return {name: first + (layers - 1) * (second - first) for name, first, second in values}
