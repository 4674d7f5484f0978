"""Which piece of which parameter a rank keeps in fp32, the same view of ZeRO 0, 1, 2 and 3.

ZeRO cuts weights and Adam moments into flat buffers whose layout depends on stage and world size. Seen as *fragments*,
flat pieces of named parameters, they do not: what is saved so is loaded at any world size and any stage
(`xdub.train.state.pieces`). The layout is DeepSpeed's own; only this file knows where it keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A flat piece of one parameter. `master` and `moments` are views of what the optimizer works on, fp32 [n]."""

    name: str
    start: int
    """Place of its first element in the flattened parameter."""
    master: Tensor
    flat: Tensor
    """The optimizer's own tensor that holds it, at `offset`."""
    offset: int
    optimizer: torch.optim.Optimizer
    share: slice
    """The part that this rank answers for: over all ranks, the shares are the whole parameter, each element once."""

    def moment(self, key: str) -> Tensor:
        """View of an Adam moment, [n]; made, as zeros, where the optimizer has not stepped yet."""
        state = adam_state(self.optimizer, self.flat)
        return state[key].view(-1).narrow(0, self.offset, self.master.numel())

    @property
    def share_start(self) -> int:
        """Place of the share's first element in the flattened parameter."""
        return self.start + self.share.start


def adam_state(optimizer: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    """Adam's state of one of its tensors; as before the first step if there is none."""
    state = optimizer.state[flat]
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
        state |= {key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS}
    return state


def set_adam_step(fragments: list[Fragment], step: int) -> None:
    """Every Adam state has its own counter of steps, for the bias correction."""
    for fragment in fragments:
        adam_state(fragment.optimizer, fragment.flat)["step"].fill_(step)


def full_shape(p: nn.Parameter) -> torch.Size:
    """Return the shape of the whole parameter: under ZeRO-3, `p` itself is empty."""
    return getattr(p, "ds_shape", p.shape)


def find_fragments(ds: Any, trained: dict[str, nn.Parameter], rank: int, world_size: int) -> list[Fragment]:
    """The fragments of this rank, in the order of ``trained`` (name -> parameter of the DeepSpeed engine ``ds``)."""
    optimizer = ds.optimizer
    if any(hasattr(p, "ds_tensor") for p in trained.values()):
        return list(_zero3(optimizer, trained, rank))
    if any(hasattr(p, "_hp_mapping") for p in trained.values()):
        return list(_zero12(optimizer, trained))
    return list(_replicated(optimizer, trained, rank, world_size))


def refresh_weights(ds: Any, trained: dict[str, nn.Parameter], fragments: list[Fragment]) -> None:
    """Bring the weights that the model computes with in line with the masters. Collective."""
    optimizer = ds.optimizer
    if any(hasattr(p, "ds_tensor") for p in trained.values()):
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:  # small ones are kept whole on every rank
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
    else:
        for fragment in fragments:
            weight = trained[fragment.name].data.view(-1)
            if weight.data_ptr() != fragment.master.data_ptr():
                weight.copy_(fragment.master)


def _zero3(zero: Any, trained: dict[str, Any], rank: int) -> Iterator[Fragment]:
    """Each parameter is cut into equal pieces, the last one padded."""
    for name, p in trained.items():
        group, offset, size = zero.grad_position[zero.get_param_id(p)]
        start = rank * size
        count = min(size, p.ds_numel - start)
        if count > 0:
            flat = zero.fp32_partitioned_groups_flat[group]
            yield _fragment(name, start, flat, offset, count, zero.optimizer)


def _zero12(zero: Any, trained: dict[str, Any]) -> Iterator[Fragment]:
    """All parameters of a group lie in a row, which is cut into equal pieces."""
    for name, p in trained.items():
        mapping = p._hp_mapping
        if mapping is not None:  # none: this parameter lies wholly on other ranks
            flat = zero.optimizer.param_groups[mapping.param_group_index]["params"][0]
            place, own = mapping.hp_fragment_address, mapping.lp_fragment_address
            yield _fragment(name, own.start, flat, place.start, own.numel, zero.optimizer)


def _replicated(
    optimizer: Any, trained: dict[str, nn.Parameter], rank: int, world_size: int
) -> Iterator[Fragment]:
    """Every rank has everything and answers for an equal share."""
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
