"""Ulysses sequence parallelism: ranks that share the tokens of one sample, and exchange heads around attention.

Every rank of a group holds one run of each frame's tokens, target and reference alike. Modulation, norms,
projections, FFN, and the attention to prompt and speech need no other rank. Self-attention needs all tokens: queries
and keys are rotated by the positions of the rank's own tokens (`Rope.share`), an all-to-all gives each rank all tokens
of its part of the heads, and a second one returns the result. Frames whose tokens the group does not divide are padded,
and padding is removed before attention.

B batch, F frames, N tokens a frame, n of them on a rank, H heads, S ranks of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub_kernels import Rope, attention, qk_norm_rope, shifted_rope_attention

_GROUPS: dict[str, dist.ProcessGroup] = {}
"""Name -> process group of the groups that this process has joined; an operator's schema knows strings only."""


@dataclass(frozen=True)
class SequenceGroup:
    """Ranks that share one sample. Hashable, so compiled code accepts it."""

    index: int
    """Position of this rank in the group."""
    size: int
    """S, number of ranks. The default group of one rank exchanges nothing."""
    name: str = ""
    """Name under which `join_sequence_group` keeps the process group. Without one, only shapes can be computed."""

    @property
    def shared(self) -> bool:
        """True if there is another rank."""
        return self.size > 1

    def own_rope(self, rope: Rope) -> Rope:
        """Return the positions of this rank's tokens."""
        return replace(rope, share=(self.index, self.size))

    def own_tokens(self, x: Tensor) -> Tensor:
        """Return this rank's run [B, F, n, ...] of x [B, F, N, ...], padded with zeros to n = ceil(N / S) tokens."""
        if not self.shared:
            return x
        length = -(-x.shape[2] // self.size)
        run = x[:, :, self.index * length : (self.index + 1) * length]
        missing = length - run.shape[2]
        return F.pad(run, (0, 0) * (x.dim() - 3) + (0, missing)) if missing else run

    def all_tokens(self, x: Tensor, tokens: int) -> Tensor:
        """Return the N = ``tokens`` tokens [B, F, N, D] of the runs x [B, F, n, D] of all ranks.

        The gradient of a run is the sum of the gradients on all ranks. Each rank computes the same loss of the result,
        so the gradients are ``size`` times those of one loss, and the mean over all ranks of a training run, of which
        ``size`` share a sample, is the mean over samples.
        """
        if not self.shared:
            return x
        runs = exchange(x.expand(self.size, *x.shape).contiguous(), self.name)
        return rearrange(runs, "s b f n d -> b f (s n) d")[:, :, :tokens]

    def compute(self, tasks: Sequence[Task], device: torch.device) -> list[Tensor]:
        """Compute the results of independent tasks on the ranks in turn; return all of them on every rank. Collective.

        The results are float32.
        """
        if not self.shared:
            return [task.compute() for task in tasks]
        group = _GROUPS[self.name]
        results = [
            task.compute().to(device).contiguous()
            if number % self.size == self.index
            else torch.empty(task.shape, device=device)
            for number, task in enumerate(tasks)
        ]
        for number, result in enumerate(results):
            dist.broadcast(result, dist.get_global_rank(group, number % self.size), group=group)
        return results


class Task(Protocol):
    """Independent piece of work, such as the encoding of a video."""

    @property
    def compute(self) -> Callable[[], Tensor]:
        """Function without arguments that returns the result."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        ...


ONE_RANK = SequenceGroup(0, 1)
"""Group of a rank that has its samples to itself."""


class SharesSequence(nn.Module):
    """Base class of modules that need the tokens of all ranks; `xdub.model.backbone` sets their group."""

    group: SequenceGroup = ONE_RANK
    """Ranks that share the tokens."""


def join_sequence_group(size: int, *, rank: int, world_size: int) -> SequenceGroup:
    """Return this rank's group: neighbours in rank order, which share a machine. Collective over all ranks."""
    if size == 1:
        return ONE_RANK
    assert world_size % size == 0, "the recipe's checks allow whole groups only"
    # Every rank takes part in the creation of every group.
    groups = [dist.new_group(list(range(first, first + size))) for first in range(0, world_size, size)]
    name = f"sequence {rank // size} of {world_size // size}"
    _GROUPS[name] = groups[rank // size]
    return SequenceGroup(rank % size, size, name)


def self_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: Rope,
    group: SequenceGroup,
    *,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    norm: str,
    eps: float = 1e-6,
    spatial: bool = False,
) -> Tensor:
    """Norm and rotate q and k, and attend among all tokens of a sample, on one rank or on a group.

    Args:
        q, k, v: [B, F, n, H, D], this rank's tokens of each frame.
        rope: positions of all tokens of the sample.
        q_weight, k_weight, norm, eps: as in `shifted_rope_attention`.
        spatial: True: attend within each frame only.

    Returns:
        [B, F, n, H, D].
    """
    frames, tokens = q.shape[1], rope.grid[1] * rope.grid[2]
    if spatial:
        rope = Rope((1, *rope.grid[1:]), 0)
    prologue: dict[str, Any] = {"q_weight": q_weight, "k_weight": k_weight, "norm": norm, "eps": eps}
    q, k, v = (_fold(x, spatial) for x in (q, k, v))
    if not group.shared:
        return _unfold(shifted_rope_attention(q, k, v, rope, **prologue), frames, spatial)
    q, k = qk_norm_rope(q, k, group.own_rope(rope), **prologue)
    parts = torch.stack([_unfold(x, frames, spatial) for x in (q, k, v)])
    q, k, v = (_fold(x, spatial) for x in tokens_of_own_heads(parts, tokens, group))
    return heads_of_own_tokens(_unfold(attention(q, k, v), frames, spatial), group)


def tokens_of_own_heads(x: Tensor, tokens: int, group: SequenceGroup) -> Tensor:
    """Exchange x [..., B, F, n, H, D], this rank's tokens, for all N = ``tokens`` tokens of its part of the heads.

    The result is [..., B, F, N, H / S, D].
    """
    parts = exchange(rearrange(x, "... (s h) d -> s ... h d", s=group.size).contiguous(), group.name)
    return rearrange(parts, "s ... n h d -> ... (s n) h d")[..., :tokens, :, :]


def heads_of_own_tokens(x: Tensor, group: SequenceGroup) -> Tensor:
    """Exchange x [B, F, N, H / S, D] for this rank's tokens with all heads, [B, F, n, H, D]."""
    missing = -x.shape[2] % group.size
    if missing:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    parts = exchange(rearrange(x, "b f (s n) h d -> s b f n h d", s=group.size).contiguous(), group.name)
    return rearrange(parts, "s b f n h d -> b f n (s h) d")


def _fold(x: Tensor, spatial: bool) -> Tensor:
    """Return [B', L, H, D] of [B, F, N, H, D], whose sequences are frames (``spatial``) or whole samples."""
    return rearrange(x, "b f n h d -> (b f) n h d" if spatial else "b f n h d -> b (f n) h d")


def _unfold(x: Tensor, frames: int, spatial: bool) -> Tensor:
    """Return [B, F, N, H, D]: the inverse of `_fold`."""
    return rearrange(x, "(b f) n h d -> b f n h d" if spatial else "b (f n) h d -> b f n h d", f=frames)


@torch.library.custom_op("xdub::exchange", mutates_args=())
def exchange(parts: Tensor, group: str) -> Tensor:
    """Send parts[s] of parts [S, ...] to rank s of a group; return the parts [S, ...] that this rank receives.

    It is one operator, so autograd, torch.compile, checkpointing and the planner's counters handle the exchange.
    """
    received = torch.empty_like(parts)
    dist.all_to_all_single(received, parts, group=_GROUPS[group])
    return received


@exchange.register_fake
def _(parts: Tensor, group: str) -> Tensor:
    return torch.empty_like(parts)


def _setup(ctx, inputs, output) -> None:
    _, ctx.group = inputs


def _backward(ctx, grad: Tensor):
    # Each part returns to the rank that it came from.
    return exchange(grad.contiguous(), ctx.group), None


exchange.register_autograd(_backward, setup_context=_setup)
