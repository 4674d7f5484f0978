"""Activation memory by rehearsal: the real network runs forwards and backwards on the meta device, and the bytes that
live at the peak are counted. No formula can fall behind the code, and a sequence of any length costs nothing.

Networks of one block and of two are rehearsed: what the second block keeps, every further block keeps, too, and the
peak is reached while the last block runs backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xdub.config import Recipe, expert_of, inpaints, phase_facts
from xdub.model.build import build_dit
from xdub.model.dit import VideoDiT
from xdub.model.lora import add_expert
from xdub.plan.live_bytes import LiveBytes
from xdub.plan.shapes import shapes
from xdub_kernels.dispatch import rehearsing_gpu

PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes on one GPU for one micro batch, without weights and their gradients."""

    kept: int
    """What the forward pass leaves for backward."""
    peak: int
    """The most that lives at any moment of forward and backward."""

    @property
    def working(self) -> int:
        """Of the peak, what comes and goes: one block that is computed again, and gradients on their way."""
        return self.peak - self.kept


def activations(
    recipe: Recipe, phase: str, policy: str, micro_batch: int, layers: int | None = None
) -> Activations:
    """Activations of ``micro_batch`` samples under a checkpoint policy, as on a GPU with our kernels."""
    count = layers or recipe.model.num_layers
    if count <= 2:
        return rehearse(_with_layers(recipe, count), phase, policy, micro_batch)
    one, two = (rehearse(_with_layers(recipe, n), phase, policy, micro_batch) for n in (1, 2))
    kept = two.kept + (count - 2) * (two.kept - one.kept)
    return Activations(kept=kept, peak=kept + two.working)


def rehearse(recipe: Recipe, phase: str, policy: str, micro_batch: int) -> Activations:
    """One forward and backward pass on the meta device."""
    dtype = PRECISION[recipe.for_phase(phase).precision]
    model, arguments = meta_model(recipe, phase, dtype), inputs(recipe, phase, micro_batch, "meta")
    model.checkpointing = policy
    with rehearsing_gpu():
        return measure(model, arguments)


def measure(model: VideoDiT, arguments: dict[str, Any]) -> Activations:
    """Bytes of one pass of ``model`` forwards and backwards, on whatever device it is."""
    with LiveBytes() as live:
        kept = forward_backward(model, arguments, live)
    return Activations(kept=kept, peak=live.peak)


def forward_backward(model: VideoDiT, arguments: dict[str, Any], live: LiveBytes | None = None) -> int:
    """One pass; returns the bytes that live between forward and backward, if someone counts.

    Gradients of the weights are let go of at once: they are counted elsewhere.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(_drop_gradient) for p in trained]
    try:
        out = model(**arguments)
        kept = live.now if live is not None else 0
        out.backward(torch.empty_like(out))
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def meta_model(recipe: Recipe, phase: str, dtype: torch.dtype = torch.float32) -> VideoDiT:
    """The network of a phase in train mode as `xdub.train.networks` builds it, without numbers."""
    with torch.device("meta"):
        model = build_dit(recipe, phase)
        if (expert := expert_of(phase)) is not None:
            add_expert(model, expert, recipe.lora)
    return model.to(dtype).train()


def inputs(recipe: Recipe, phase: str, batch: int, device: str) -> dict[str, Any]:
    """Arguments of VideoDiT with the shapes that the data stream delivers."""
    s, channels = shapes(recipe, phase), recipe.codec.channels
    z_t = torch.zeros(batch, channels, s.target, s.side, s.side, device=device)
    arguments = dict(
        z_t=z_t,
        z_ref=torch.zeros(batch, channels, s.reference, s.side, s.side, device=device),
        t=torch.full((batch,), 0.5, device=device),
        audio=torch.zeros(batch, s.audio, recipe.audio.dim, device=device),
        starts=torch.zeros(s.target, dtype=torch.int64, device=device),
    )
    if inpaints(phase):
        arguments["z_mask"] = z_t
    if phase_facts(phase).silences:
        arguments["audio_enabled"] = torch.ones(batch, dtype=torch.bool, device=device)
    return arguments


def _with_layers(recipe: Recipe, count: int) -> Recipe:
    return replace(recipe, model=replace(recipe.model, num_layers=count))
