"""AdamW whose two moments have 8 bits a number, in blocks of 256 numbers with a scale in fp32.

A code stands for a number of a table between -1 and 1, and the block's scale is its largest absolute moment. The table
has seven decades, each with twice as many numbers as the decade below, so small moments keep their size roughly and
large ones precisely. The largest moment of a block keeps its exact value. Moments therefore survive a save in fp32 and
a load into equal blocks bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, overload

import torch
from torch import Tensor

from xdub.precision import MOMENT_BLOCK

BLOCK = MOMENT_BLOCK
"""Numbers that share a scale."""
DECADES = 7
"""Decades of the tables, from 1e-7 to 1."""
CHUNK = 1 << 24
"""Numbers that a step converts to fp32 at once; temporary tensors have up to this size."""
MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""Key of a moment -> whether it has a sign."""


@cache
def number_table(signed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the numbers of all codes in ascending order, [255], and the borders between neighbours, [254]."""
    numbers = [0.0]
    for decade in range(DECADES):
        count = 2**decade if signed else 2 ** (decade + 1)
        top = 10.0 ** (decade + 1 - DECADES)
        positive = [top * (0.1 + 0.9 * (i + 1) / count) for i in range(count)]
        numbers += positive + ([-x for x in positive] if signed else [])
    # The last number of each decade is the exact power of ten, so the scale itself has a code.
    table = torch.tensor(sorted(numbers), dtype=torch.float64)
    table = torch.where(table.abs() > 1 - 1e-12, table.sign(), table)
    borders = (table[1:] + table[:-1]) / 2
    if not signed:
        # A second moment that is rounded to zero would let one step be many times too long.
        borders[0] = 0.0
    return table.float().to(device), borders.float().to(device)


def encode_moment(moment: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Return codes uint8 [n] and scales fp32 [ceil(n / BLOCK)] of a moment fp32 [n]."""
    _, borders = number_table(signed, moment.device)
    blocks = torch.nn.functional.pad(moment, (0, -moment.numel() % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1)
    shares = blocks / torch.where(scale > 0, scale, 1.0)[:, None]
    codes = torch.bucketize(shares, borders, out_int32=True).to(torch.uint8)
    return codes.view(-1)[: moment.numel()], scale


def decode_moment(codes: Tensor, scale: Tensor, *, signed: bool) -> Tensor:
    """Return the moment fp32 [n] of codes [n] and scales [ceil(n / BLOCK)]."""
    table, _ = number_table(signed, codes.device)
    numbers = table[codes.int()]
    return numbers.mul_(scale.repeat_interleave(BLOCK)[: codes.numel()])


class AdamW8bit(torch.optim.Optimizer):
    """AdamW of `torch.optim` with moments in 8 bits; every tensor, of any size, is divided into blocks."""

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """Accept parameters or groups of them, with the settings of `torch.optim.AdamW`."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def state_of(self, p: Tensor) -> dict[str, Any]:
        """Return the state of a parameter; before the first step it is created as zeros."""
        state = self.state[p]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for key, signed in MOMENTS.items():
                # The code of zero is the middle of the signed table, and the first of the unsigned one.
                zero = 127 if signed else 0
                state[key] = torch.full((p.numel(),), zero, dtype=torch.uint8, device=p.device)
                state[f"{key}_scale"] = torch.zeros(math.ceil(p.numel() / BLOCK), device=p.device)
        return state

    def read_moment(self, p: Tensor, key: str, start: int, count: int) -> Tensor:
        """Return a copy of ``count`` numbers of a flattened moment from ``start`` on, fp32."""
        state, first = self.state_of(p), start // BLOCK
        end = start + count
        codes, scale = state[key][first * BLOCK : end], state[f"{key}_scale"][first : math.ceil(end / BLOCK)]
        return decode_moment(codes, scale, signed=MOMENTS[key])[start - first * BLOCK :]

    def write_moment(self, p: Tensor, key: str, value: Tensor) -> None:
        """Replace a moment by ``value`` fp32 [n], on any device."""
        state = self.state_of(p)
        for part, blocks in _chunks(p.numel()):
            codes, scale = encode_moment(value[part].to(p.device), signed=MOMENTS[key])
            state[key][part], state[f"{key}_scale"][blocks] = codes, scale

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient; ``closure`` computes the loss again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state_of(p)
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        rate, root = group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
        weight, grad = p.view(-1), grad.reshape(-1)
        for part, blocks in _chunks(p.numel()):
            g, moments = grad[part].float(), {}
            for key, signed in MOMENTS.items():
                moments[key] = decode_moment(state[key][part], state[f"{key}_scale"][blocks], signed=signed)
            mean = moments["exp_avg"].lerp_(g, 1 - beta1)
            square = moments["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            weight[part].mul_(1 - group["lr"] * group["weight_decay"])
            weight[part].addcdiv_(mean, (square.sqrt() / root).add_(group["eps"]), value=-rate)
            for key, signed in MOMENTS.items():
                state[key][part], state[f"{key}_scale"][blocks] = encode_moment(moments[key], signed=signed)


def _chunks(count: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of ``count`` numbers and of their blocks, up to CHUNK numbers each."""
    for start in range(0, count, CHUNK):
        end = min(start + CHUNK, count)
        yield slice(start, end), slice(start // BLOCK, math.ceil(end / BLOCK))
