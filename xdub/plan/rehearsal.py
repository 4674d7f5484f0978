"""Activation memory, predicted by a rehearsal: the real network runs forwards and backwards on the meta device, and the
bytes of live tensors are counted at the peak. The prediction follows the code of the network, and a sequence of any
length costs no memory.

Networks of one block and of two are rehearsed. Every further block keeps as much as the second one, and the peak is
reached while the last block runs backwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from xdub.config import Policy, Recipe, inpaints, phase_facts
from xdub.model.backbone import Backbone
from xdub.model.build import build_backbone
from xdub.model.frozen_base import store_frozen
from xdub.model.lora import adapt
from xdub.model.sequence import SequenceGroup
from xdub.plan.shapes import shapes
from xdub.precision import dtype_of
from xdub_kernels.dispatch import CAPABILITIES, Capability, rehearsing_gpu


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes of activations on one GPU for one micro batch, without weights and their gradients."""

    kept: int
    """Bytes that the forward pass keeps for the backward pass."""
    peak: int
    """Largest number of bytes alive at any moment of the forward and backward passes."""
    exchanged: int = 0
    """Bytes that the GPU sends to those that share its samples, forwards and backwards (`xdub.model.sequence`)."""

    @property
    def working(self) -> int:
        """Temporary bytes at the peak: one block that is computed again, and gradients between layers."""
        return self.peak - self.kept


class LiveBytes(TorchDispatchMode):
    """Context manager that counts the bytes of the storages that operators allocate in it and that are still alive.

    It sees the results of operators, not what an operator allocates and frees inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes alive now."""
        self.peak = 0
        """Largest value of ``now`` so far."""
        self.exchanged = 0
        """Bytes sent to other ranks that share the samples."""
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        before = {id(x.untyped_storage()) for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.xdub.exchange.default:
            # One of the parts stays on its rank.
            self.exchanged += args[0].nbytes * (len(args[0]) - 1) // len(args[0])
        for x in tree_iter(out):
            # A view, or a result in place, has the storage of an argument.
            if isinstance(x, Tensor) and id(x.untyped_storage()) not in before:
                self._add(x.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def freed(_: weakref.ref[torch.UntypedStorage]) -> None:
            self.now -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def activations(
    recipe: Recipe,
    phase: str,
    policy: Policy,
    micro_batch: int,
    layers: int | None = None,
    *,
    capability: Capability = CAPABILITIES[-1],
) -> Activations:
    """Predict the activations of ``micro_batch`` samples under a checkpoint policy, on a GPU of a compute capability.

    Our kernels run on the capabilities for which they are built, the default among them, and torch's operators on all
    others.
    """
    count = layers or recipe.model.num_layers
    run = partial(rehearse, phase=phase, policy=policy, micro_batch=micro_batch, capability=capability)
    if count <= 2:
        return run(with_layers(recipe, count))
    one, two = (run(with_layers(recipe, n)) for n in (1, 2))
    kept = two.kept + (count - 2) * (two.kept - one.kept)
    exchanged = two.exchanged + (count - 2) * (two.exchanged - one.exchanged)
    return Activations(kept=kept, peak=kept + two.working, exchanged=exchanged)


def rehearse(
    recipe: Recipe,
    phase: str,
    policy: Policy,
    micro_batch: int,
    *,
    capability: Capability = CAPABILITIES[-1],
) -> Activations:
    """Run one forward and backward pass on the meta device and count its bytes; ``capability`` as in `activations`."""
    dtype = dtype_of(recipe.for_phase(phase).precision)
    model, arguments = meta_model(recipe, phase, dtype), inputs(recipe, phase, micro_batch, "meta")
    model.checkpointing = policy
    model.share_sequence(SequenceGroup(0, recipe.for_phase(phase).sequence_parallel))
    with rehearsing_gpu(capability):
        return measure(model, arguments)


def measure(model: Backbone, arguments: dict[str, Any]) -> Activations:
    """Count the bytes of one pass of ``model`` forwards and backwards, on any device."""
    with LiveBytes() as live:
        kept = forward_backward(model, arguments, live)
    return Activations(kept=kept, peak=live.peak, exchanged=live.exchanged)


def forward_backward(model: Backbone, arguments: dict[str, Any], live: LiveBytes | None = None) -> int:
    """Run one pass, and return the bytes of ``live`` between forward and backward (0 without a counter).

    Gradients of the weights are dropped at once, because `xdub.plan.memory` counts them.
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


def meta_model(recipe: Recipe, phase: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """Return the network of a phase in train mode as `xdub.train.networks` builds it, without values."""
    with torch.device("meta"):
        model = build_backbone(recipe, phase)
        adapt(model, recipe, phase)
        store_frozen(model, recipe.for_phase(phase), phase)
    return model.to(dtype).train()


def inputs(recipe: Recipe, phase: str, batch: int, device: str) -> dict[str, Any]:
    """Return arguments of the backbone with the shapes that the data stream delivers."""
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


def with_layers(recipe: Recipe, count: int) -> Recipe:
    """Return the recipe with a backbone of ``count`` blocks."""
    return replace(recipe, model=replace(recipe.model, num_layers=count))
