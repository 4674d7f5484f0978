"""Parameters and matrix products of a phase's backbone, counted on the meta device by torch itself.

A network of at most two blocks is built and run forwards and backwards once; every further block repeats the second.
The first block can differ from the second one: an expert's frozen layers before the first adapter need no gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from xdub.config import Recipe
from xdub.model.backbone import Backbone
from xdub.model.frozen_base import StoredLinear
from xdub.plan.rehearsal import inputs, meta_model, with_layers
from xdub.precision import number_bytes

OUTSIDE = "embedding and output"
"""Row of the products outside the blocks."""
COUNTED_BLOCKS = 2
"""Blocks of the network that is built; the last one represents all further ones."""


@dataclass(frozen=True, kw_only=True)
class FrozenTensors:
    """Frozen tensors in one or more blocks, which can be stored compactly and be offloaded."""

    numbers: int = 0
    """Numbers in the precision of the network."""
    stored: int = 0
    """Numbers in compact storage, see `xdub.model.frozen_base`."""
    stored_bytes: int = 0
    """Bytes of these numbers and their scales."""

    def bytes_in(self, precision: str) -> float:
        """Return the bytes of all tensors under a network in ``precision``."""
        return float(number_bytes(precision) * self.numbers + self.stored_bytes)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Number of parameters of the network that a phase trains."""

    trained: int
    """Parameters that the optimizer changes."""
    frozen: int
    """Parameters under an adapter; 0 in a phase that trains all weights."""
    block: int
    """Parameters of one block without adapters."""
    largest_layer: int
    """Parameters of the largest single layer, which ZeRO-3 holds gathered, with its gradient."""
    in_blocks: int = 0
    """Parameters in all blocks, adapters included."""
    frozen_blocks: FrozenTensors = FrozenTensors()
    """Frozen tensors in all blocks."""
    largest_block: FrozenTensors = FrozenTensors()
    """Frozen tensors of the block that has most of them."""

    @property
    def total(self) -> int:
        """Number of parameters, trained and frozen."""
        return self.trained + self.frozen


@dataclass(frozen=True, kw_only=True)
class Products:
    """FLOPs of one kind of matrix product in one module, of one sample, summed over the blocks that it represents."""

    part: str
    """Row of the plan's table of FLOPs."""
    attention: bool
    """True for the two products of attention, False for products with weights."""
    self_attention: bool
    """True for the two products of self-attention, whose result the checkpoint policy `attention` keeps."""
    in_block: bool
    """True if activation checkpointing can repeat the product."""
    forward: int
    """FLOPs of the forward pass; a multiplication with its addition counts 2."""
    backward: int
    """FLOPs of the gradients that the phase needs."""

    @property
    def rescored(self) -> int:
        """FLOPs of a second q k^T, which a fused backward pass computes instead of keeping the scores."""
        return self.forward // 2 if self.attention and self.backward else 0


@dataclass(frozen=True, kw_only=True)
class Network:
    """Counts of the backbone that a phase trains."""

    parameters: Parameters
    products: tuple[Products, ...]


def count_network(recipe: Recipe, phase: str) -> Network:
    """Count parameters, and the products of one sample forwards and backwards without activation checkpointing."""
    model, blocks = meta_model(_shallow(recipe), phase), recipe.model.num_layers
    counter = _Counter()
    # torch counts the products of the plain formula, which the backend MATH selects on every machine.
    with counter.counting(model), sdpa_kernel(SDPBackend.MATH):
        out = model(**inputs(recipe, phase, 1, "meta"))
        counter.begin_backward()
        out.backward(torch.empty_like(out))
    products = [_products(key, flops, blocks, model) for key, flops in counter.flops.items() if any(flops)]
    return Network(parameters=_parameters(model, blocks), products=tuple(products))


def count_parameters(recipe: Recipe, phase: str) -> Parameters:
    """Count the parameters of a phase's network, without its products."""
    return _parameters(meta_model(_shallow(recipe), phase), recipe.model.num_layers)


def _parameters(model: Backbone, blocks: int) -> Parameters:
    trained = frozen = block = in_blocks = 0
    for name, numel, requires_grad in _numbers(model):
        index = _block_of(name)
        count = numel * _repeats(index, blocks)
        trained += count if requires_grad else 0
        frozen += 0 if requires_grad else count
        in_blocks += 0 if index is None else count
        block += numel if index == 0 and ".lora_" not in name else 0
    rows = [_frozen_tensors(block) for block in model.blocks]
    repeated = [row for index, row in enumerate(rows) for _ in range(_repeats(index, blocks))]
    largest = max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())
    return Parameters(
        trained=trained,
        frozen=frozen,
        block=block,
        largest_layer=largest,
        in_blocks=in_blocks,
        frozen_blocks=FrozenTensors(
            numbers=sum(row.numbers for row in repeated),
            stored=sum(row.stored for row in repeated),
            stored_bytes=sum(row.stored_bytes for row in repeated),
        ),
        largest_block=max(rows, key=lambda row: row.numbers + row.stored),
    )


def _numbers(model: nn.Module) -> Iterator[tuple[str, int, bool]]:
    """Yield (name, number of elements, requires_grad) of all parameters, and of weights in compact storage."""
    for name, parameter in model.named_parameters():
        yield name, parameter.numel(), parameter.requires_grad
    for name, module in model.named_modules():
        if isinstance(module, StoredLinear):
            yield f"{name}.codes", module.codes.numel(), False


def _frozen_tensors(block: nn.Module) -> FrozenTensors:
    stored = [module for module in block.modules() if isinstance(module, StoredLinear)]
    return FrozenTensors(
        numbers=sum(p.numel() for p in block.parameters() if not p.requires_grad),
        stored=sum(layer.codes.numel() for layer in stored),
        stored_bytes=sum(b.nbytes for layer in stored for b in layer.buffers()),
    )


def _products(key: _Key, flops: list[int], blocks: int, model: Backbone) -> Products:
    """Return the products that were counted under ``key``, multiplied by the blocks that the key represents."""
    self_attention = key.attention and key.module in model.self_attentions
    names = model.self_attentions if self_attention else model.parts
    return Products(
        part=OUTSIDE if key.block is None else names.get(key.module, key.module),
        attention=key.attention,
        self_attention=self_attention,
        in_block=key.block is not None,
        forward=_repeats(key.block, blocks) * flops[0],
        backward=_repeats(key.block, blocks) * flops[1],
    )


class _Key(NamedTuple):
    """A kind of product in one module."""

    block: int | None
    """Index of the block; None outside the blocks."""
    module: str
    """Name of the module in its block; empty outside the blocks."""
    attention: bool
    """True for the two products of attention, False for products with weights."""


class _Counter:
    """Attributes FLOPs to the module of the layer with weights that ran last, forwards or backwards.

    The products of an attention run between two layers of its module, so they are attributed to that module, too.
    """

    def __init__(self) -> None:
        # This import loads Triton, which takes seconds.
        from torch.utils.flop_counter import FlopCounterMode

        self.flops: dict[_Key, list[int]] = defaultdict(lambda: [0, 0])
        """FLOPs forwards and backwards."""
        self._backward = False
        self._layer = ""
        self._before = {True: 0, False: 0}
        """FLOPs attributed so far: of attention (True), and of products with weights (False)."""
        self._counter = FlopCounterMode(display=False)

    @contextmanager
    def counting(self, model: nn.Module) -> Iterator[None]:
        """Count what ``model`` computes inside the context."""
        hooks = []
        for name, layer in model.named_modules():
            if any(True for _ in layer.parameters(recurse=False)):
                hooks.append(layer.register_forward_pre_hook(self._entering(name)))
                hooks.append(layer.register_forward_hook(self._leaving(name)))
        try:
            with self._counter:
                yield
                self._attribute()
        finally:
            for hook in hooks:
                hook.remove()

    def begin_backward(self) -> None:
        """Count what follows as the backward pass."""
        self._attribute()
        self._backward = True

    def _entering(self, name: str) -> Callable[..., None]:
        """Hook that runs before a layer's forward pass."""
        return lambda *_: self._enter(name)

    def _leaving(self, name: str) -> Callable[..., None]:
        """Hook that runs after a layer's forward pass: autograd has the gradient of the layer's output right before
        the layer's own backward pass."""

        def hook(_module: nn.Module, _arguments: object, out: Tensor) -> None:
            if out.requires_grad:
                out.register_hook(lambda _: self._enter(name))

        return hook

    def _enter(self, layer: str) -> None:
        self._attribute()
        self._layer = layer

    def _attribute(self) -> None:
        """Attribute the products that were counted since the last call to the current layer."""
        counts = self._counter.get_flop_counts().get("Global", {})
        attention = counts.get(torch.ops.aten.bmm, 0)
        block = _block_of(self._layer)
        module = "" if block is None else ".".join(self._layer.split(".")[2:3])
        for kind, flops in ((True, attention), (False, sum(counts.values()) - attention)):
            self.flops[_Key(block, module, kind)][self._backward] += flops - self._before[kind]
            self._before[kind] = flops


def _shallow(recipe: Recipe) -> Recipe:
    return with_layers(recipe, min(recipe.model.num_layers, COUNTED_BLOCKS))


def _block_of(name: str) -> int | None:
    """Index of the block that a parameter or module is in; None outside the blocks."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None


def _repeats(index: int | None, blocks: int) -> int:
    """Number of the network's blocks that counted block ``index`` represents; 1 outside the blocks."""
    return blocks - COUNTED_BLOCKS + 1 if index == COUNTED_BLOCKS - 1 else 1
