"""Fragments: the pieces of the parameters that a rank keeps in fp32, in one view for ZeRO 0, 1, 2 and 3.

ZeRO cuts weights and Adam moments into flat buffers whose layout depends on stage and world size. *Fragments*, flat
pieces of named parameters, do not depend on them, so saved fragments are loaded at any world size and any stage
(`xdub.train.state.pieces`). The layout is DeepSpeed's own, and only this file depends on it. DeepSpeed does not
document the public attributes that hold it, so the fp32 values are compared with the weights when an engine is built.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from xdub.train.adamw8bit import AdamW8bit

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Keys of the moments in Adam's state."""


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A flat piece of one parameter; `master` and the moments are views of the optimizer's own fp32 tensors, [n]."""

    name: str
    start: int
    """Index of the fragment's first element in the flattened parameter."""
    master: Tensor
    flat: Tensor
    """The optimizer's tensor that holds `master`, at `offset`."""
    offset: int
    optimizer: torch.optim.Optimizer
    share: slice
    """Part that this rank saves: the shares of all ranks cover the whole parameter, each element once."""

    def moment(self, key: str) -> Tensor:
        """Return an Adam moment, fp32 [n], as a view, or as a copy of one in 8 bits; at first it is zero."""
        if isinstance(self.optimizer, AdamW8bit):
            return self.optimizer.read_moment(self.flat, key, self.offset, self.master.numel())
        state = adam_state(self.optimizer, self.flat)
        return state[key].view(-1).narrow(0, self.offset, self.master.numel())

    @property
    def share_start(self) -> int:
        """Index of the share's first element in the flattened parameter."""
        return self.start + self.share.start


def adam_state(optimizer: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    """Return Adam's state of one of its tensors; before the first step it is created with zeros."""
    if isinstance(optimizer, AdamW8bit):
        return optimizer.state_of(flat)
    state = optimizer.state[flat]
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
        state |= {key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS}
    return state


def load_moment(fragments: list[Fragment], key: str, fill: Callable[[Tensor, str, str, int], None]) -> None:
    """Let ``fill(target [n], key, name, start)`` write a moment of every fragment.

    Fragments can share a block of 8-bit numbers, so a tensor of the optimizer is filled whole before it is encoded.
    """
    encoded: dict[int, list[Fragment]] = {}
    for fragment in fragments:
        if isinstance(fragment.optimizer, AdamW8bit):
            encoded.setdefault(id(fragment.flat), []).append(fragment)
        else:
            fill(fragment.moment(key), key, fragment.name, fragment.start)
    for group in encoded.values():
        flat, optimizer = group[0].flat, group[0].optimizer
        assert isinstance(optimizer, AdamW8bit)
        whole = torch.zeros(flat.numel())
        for fragment in group:
            target = whole.narrow(0, fragment.offset, fragment.master.numel())
            fill(target, key, fragment.name, fragment.start)
        optimizer.write_moment(flat, key, whole)


def set_adam_step(fragments: list[Fragment], step: int) -> None:
    """Set the step counters of all Adam states, which the bias correction reads."""
    for fragment in fragments:
        adam_state(fragment.optimizer, fragment.flat)["step"].fill_(step)


def full_shape(p: nn.Parameter) -> torch.Size:
    """Return the shape of the whole parameter: under ZeRO-3, `p` itself is empty."""
    return getattr(p, "ds_shape", p.shape)


def find_fragments(ds: Any, trained: dict[str, nn.Parameter], rank: int, world_size: int) -> list[Fragment]:
    """Return the fragments of this rank, in the order of ``trained`` (name -> parameter of the engine ``ds``).

    Call it before the first step, while each weight is still its rounded master. Raise RuntimeError for a DeepSpeed
    with another layout.
    """
    with _layout_checked():
        stage, optimizer = ds.zero_optimization_stage(), ds.optimizer
        if stage == 0:
            return list(_replicated(optimizer, trained, rank, world_size))
        fragments = list((_zero3 if stage == 3 else _zero12)(optimizer, trained, rank))
        for fragment in fragments:
            weight = _weight(fragment, trained)
            # NaN equals NaN in this comparison, because the first step reports weights that are not finite.
            if not torch.allclose(fragment.master.to(weight), weight, rtol=0, atol=0, equal_nan=True):
                raise LookupError(f"{fragment.name} differs from its fp32 weights")
        return fragments


def refresh_weights(ds: Any, trained: dict[str, nn.Parameter], fragments: list[Fragment]) -> None:
    """Copy the masters to the weights that the model computes with. Collective.

    Raise RuntimeError for a DeepSpeed with another layout.
    """
    with _layout_checked():
        stage, optimizer = ds.zero_optimization_stage(), ds.optimizer
        if stage in (1, 2):
            optimizer.update_lp_params()
            return
        if stage == 3:
            # Gathered copies of the old weights are dropped, so the next pass gathers the new ones.
            optimizer.empty_partition_cache()
        for fragment in fragments:
            weight = _weight(fragment, trained)
            if weight.data_ptr() != fragment.master.data_ptr():
                weight.copy_(fragment.master)
        if stage == 3 and optimizer.persistent_parameters:  # the small parameters that every rank keeps whole
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


@contextmanager
def _layout_checked() -> Generator[None]:
    """Raise RuntimeError with the supported versions if DeepSpeed's tensors are not where this file expects them."""
    try:
        yield
    except (AttributeError, LookupError) as error:
        raise RuntimeError(
            f"DeepSpeed {version('deepspeed')} keeps its fp32 weights elsewhere than DeepSpeed 0.19.0 to 0.19.8 "
            f"({error}); install one of those"
        ) from error


def _weight(fragment: Fragment, trained: dict[str, Any]) -> Tensor:
    """Return the fragment's part of the weight that the model computes with, a view, [n]."""
    p, count = trained[fragment.name], fragment.master.numel()
    if hasattr(p, "ds_tensor"):  # ZeRO 3: this rank's piece of the parameter
        return p.ds_tensor.data.view(-1).narrow(0, 0, count)
    return p.data.view(-1).narrow(0, fragment.start, count)


def _zero3(zero: Any, trained: dict[str, Any], rank: int) -> Iterator[Fragment]:
    """Yield fragments of ZeRO 3, which cuts each parameter into equal pieces, the last one padded."""
    for name, p in trained.items():
        group, offset, size = zero.grad_position[zero.get_param_id(p)]
        start = rank * size
        count = min(size, p.ds_numel - start)
        if count > 0:
            flat = zero.fp32_partitioned_groups_flat[group]
            yield _fragment(name, start, flat, offset, count, zero.optimizer)


def _zero12(zero: Any, trained: dict[str, Any], rank: int) -> Iterator[Fragment]:
    """Yield fragments of ZeRO 1 and 2, where the weights of a group are views of one flat tensor.

    The flat tensor is cut into equal pieces; the optimizer's only parameter of a group is this rank's piece in fp32.
    """
    groups = zip(zero.bit16_groups, zero.bit16_groups_flat, zero.optimizer.param_groups, strict=True)
    buffers = {id(p): (whole, group["params"][0]) for weights, whole, group in groups for p in weights}
    for name, p in trained.items():
        whole, flat = buffers[id(p)]
        # Index of the parameter's first element in this rank's piece; it is negative if the parameter starts before.
        first = p.storage_offset() - whole.storage_offset() - rank * flat.numel()
        start, end = max(0, -first), min(p.numel(), flat.numel() - first)
        if start < end:
            yield _fragment(name, start, flat, first + start, end - start, zero.optimizer)


def _replicated(
    optimizer: Any, trained: dict[str, nn.Parameter], rank: int, world_size: int
) -> Iterator[Fragment]:
    """Yield fragments of ZeRO 0, where every rank has everything and saves an equal share."""
    masters = {id(p): p for p in trained.values()}
    for low, high in zip(
        getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ()), strict=True
    ):
        masters |= {id(p): master for p, master in zip(low, high, strict=True)}
    base = getattr(optimizer, "optimizer", optimizer)
    for name, p in trained.items():
        size = -(-p.numel() // world_size)
        low = min(rank * size, p.numel())
        share = slice(low, min(low + size, p.numel()))
        yield _fragment(name, 0, masters[id(p)], 0, p.numel(), base, share)


def _fragment(
    name: str,
    start: int,
    flat: Tensor,
    offset: int,
    count: int,
    optimizer: torch.optim.Optimizer,
    share: slice | None = None,
) -> Fragment:
    return Fragment(
        name=name,
        start=start,
        master=flat.data.view(-1).narrow(0, offset, count),
        flat=flat,
        offset=offset,
        optimizer=optimizer,
        share=share or slice(0, count),
    )
