"""Benchmarks of operations at the sizes of the 1B recipe: our kernels and their competitors on the same inputs.

A `Bench` builds sets of inputs, computes the exact result on a few rows, and lists the competitors. ``flops`` counts a
multiply-add as two, and backward of attention as five products whatever the implementation does; ``bytes`` counts every
input and output once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from perf.kernels import baselines
from xdub_kernels import (
    Rope,
    attention,
    frame_audio_attention,
    qk_norm_rope,
    shifted_rope_attention,
    weighted_flow_loss,
)
from xdub_kernels.testing import normal

Provider = Callable[..., Tensor | tuple[Tensor, ...]]
"""One implementation of an operation."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One operation at one size."""

    kernel: str
    """Name of the operation."""
    shape: str
    """Name of the size."""
    make: Callable[[int, torch.dtype, str], list[Tensor]]
    """Function (seed, dtype, device) -> inputs."""
    trained: int
    """Number of leading inputs that get a gradient."""
    exact: Provider
    """Reference implementation; runs in the dtype of its inputs."""
    providers: Mapping[str, Provider]
    """Competitors by name, ours first."""
    flops: Mapping[str, float] = field(default_factory=dict)
    """FLOPs by mode: fwd, bwd."""
    bytes: Mapping[str, float] = field(default_factory=dict)
    """Bytes by mode; a bench is timed in these modes. "full" is forward and backward together."""
    small: bool = False
    """True if single launches are too short to be timed, so that they are recorded as a CUDA graph."""
    exact_rows: Callable[[list[Tensor], Tensor], Tensor] | None = None
    """Function (inputs in fp32, row numbers) -> those rows of the output, for sizes that are too large as a whole."""

    @property
    def name(self) -> str:
        """Operation and size."""
        return f"{self.kernel} {self.shape}"


HEADS, DIM = 12, 128
"""Attention heads and channels per head of the 1B recipe."""
EXACT_TOKENS = 2048
"""Longest sequence whose whole result is computed exactly."""
GRIDS = {
    "editor-40960": Rope((20, 32, 32), 20),
    "tokens-10240": Rope((5, 32, 32), 5),
    "generator-8192": Rope((7, 32, 32), 1),
    "ragged-1885": Rope((4, 13, 29), 1),
    "tiny": Rope((2, 3, 5), 2),
}
"""Sizes by name. "ragged" fits no tile and is small enough to check all gradients; "tiny" is for the CPU."""


def benches(shapes: Sequence[str]) -> list[Bench]:
    """Return all operations at ``"real"``, ``"sweep"`` or ``"tiny"`` sizes."""
    selected: list[Bench] = []
    for kind in shapes:
        tiny = kind == "tiny"
        heads, dim = (2, 16) if tiny else (HEADS, DIM)
        grids = {
            "real": ["ragged-1885", "generator-8192", "editor-40960"],
            "sweep": ["tokens-10240"],
            "tiny": ["tiny"],
        }[kind]
        for name in grids:
            selected += [_prologue(name, heads, dim), _rope_attention(name, heads, dim)]
            length = GRIDS[name].tokens
            selected.append(_attention(f"3d-{name}", 1, length, heads, dim))
        if kind != "sweep":
            selected.append(
                _attention(
                    "2d-tiny" if tiny else "2d-40x1024", 3 if tiny else 40, 15 if tiny else 1024, heads, dim
                )
            )
            selected.append(
                _audio("tiny", 2, 7, 20, heads, dim) if tiny else _audio("20x1024", 20, 1024, 162, heads, dim)
            )
            selected += [
                _flow(n, batch, tiny) for n, batch in (("batch1", 1), ("batch64", 2 if tiny else 64))
            ]
    return selected


def _qkv(shape: tuple[int, ...], seed: int, dtype: torch.dtype, device: str, count: int) -> list[Tensor]:
    if device == "cpu":
        return [normal(shape, seed + i, dtype, device) for i in range(count)]
    generator = torch.Generator(device).manual_seed(seed)
    return [torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(count)]


def _weighted(shape: tuple[int, ...], count: int) -> Callable[[int, torch.dtype, str], list[Tensor]]:
    """Return a function that builds ``count`` tensors [B, L, H, D] and the two norm weights [D]."""

    def make(seed: int, dtype: torch.dtype, device: str) -> list[Tensor]:
        weights = [1 + 0.1 * w for w in _qkv(shape[-1:], seed + 9, torch.float32, device, 2)]
        return [*_qkv(shape, seed, dtype, device, count), *(w.to(dtype) for w in weights)]

    return make


def _prologue(name: str, heads: int, dim: int) -> Bench:
    rope = GRIDS[name]
    shape = (1, rope.tokens, heads, dim)

    def own(q, k, q_weight, k_weight, impl="triton"):
        return qk_norm_rope(q, k, rope, q_weight=q_weight, k_weight=k_weight, norm="head", impl=impl)

    qk_elements = 2 * torch.Size(shape).numel()
    return Bench(
        kernel="qk_norm_rope",
        shape=name,
        make=_weighted(shape, 2),
        trained=4,
        exact=partial(own, impl="reference"),
        providers={
            "xdub": own,
            "eager-official": lambda *x: baselines.eager_prologue(*x, rope, "head"),
            "compiled": lambda *x: baselines.compiled_tables_prologue(*x, rope, "head"),
        },
        bytes={"fwd": 2 * qk_elements * 2, "bwd": 3 * qk_elements * 2},
    )


def _rope_attention(name: str, heads: int, dim: int) -> Bench:
    rope = GRIDS[name]
    length = rope.tokens
    shape = (1, length, heads, dim)

    def own(q, k, v, q_weight, k_weight, **options):
        return shifted_rope_attention(
            q, k, v, rope, q_weight=q_weight, k_weight=k_weight, norm="head", **options
        )

    def behind(prologue, core):
        def run(q, k, v, q_weight, k_weight):
            return core(*prologue(q, k, q_weight, k_weight, rope, "head"), v)

        return run

    def exact_rows(inputs: list[Tensor], rows: Tensor) -> Tensor:
        q, k, v, q_weight, k_weight = inputs
        q, k = qk_norm_rope(q, k, rope, q_weight=q_weight, k_weight=k_weight, norm="head", impl="reference")
        return attention(q[:, rows], k, v, impl="reference", backend="math")

    flops = 4 * length**2 * heads * dim
    return Bench(
        kernel="shifted_rope_attention",
        shape=name,
        make=_weighted(shape, 3),
        trained=5,
        exact=partial(own, impl="reference"),
        providers={
            "xdub": partial(own, impl="triton"),
            "xdub-triton": partial(own, impl="triton", backend="triton"),
            "xdub-triton-deterministic": partial(own, impl="triton", backend="triton", deterministic=True),
            "eager-official": behind(baselines.eager_prologue, baselines.sdpa),
            "compiled-flash": behind(
                baselines.compiled_tables_prologue, partial(baselines.sdpa, kernel="flash")
            ),
            "compiled-cudnn": behind(
                baselines.compiled_tables_prologue, partial(baselines.sdpa, kernel="cudnn")
            ),
        },
        flops={"fwd": flops, "bwd": 2.5 * flops},
        bytes={"fwd": 4 * torch.Size(shape).numel() * 2, "bwd": 8 * torch.Size(shape).numel() * 2},
        exact_rows=exact_rows if length > EXACT_TOKENS else None,
    )


def _attention(name: str, batch: int, length: int, heads: int, dim: int) -> Bench:
    shape = (batch, length, heads, dim)

    def exact_rows(inputs: list[Tensor], rows: Tensor) -> Tensor:
        q, k, v = inputs
        return attention(q[:, rows], k, v, impl="reference", backend="math")

    flops = 4 * batch * length**2 * heads * dim
    return Bench(
        kernel="attention",
        shape=name,
        make=lambda seed, dtype, device: _qkv(shape, seed, dtype, device, 3),
        trained=3,
        exact=partial(attention, impl="reference"),
        providers={
            "xdub-triton": partial(attention, impl="triton"),
            "sdpa-flash": partial(baselines.sdpa, kernel="flash"),
            "sdpa-cudnn": partial(baselines.sdpa, kernel="cudnn"),
            "flex": baselines.flex,
        },
        flops={"fwd": flops, "bwd": 2.5 * flops},
        bytes={"fwd": 4 * torch.Size(shape).numel() * 2, "bwd": 8 * torch.Size(shape).numel() * 2},
        exact_rows=exact_rows if length > EXACT_TOKENS else None,
    )


def _audio(name: str, frames: int, tokens: int, rows: int, heads: int, dim: int) -> Bench:
    def make(seed: int, dtype: torch.dtype, device: str) -> list[Tensor]:
        (q,) = _qkv((1, frames, tokens, heads, dim), seed, dtype, device, 1)
        starts = torch.arange(frames, device=device) * (rows - 16) // max(frames - 1, 1)
        return [q, *_qkv((1, rows, heads, dim), seed + 5, dtype, device, 2), starts]

    queries = frames * tokens * heads * dim
    return Bench(
        kernel="frame_audio_attention",
        shape=name,
        make=make,
        trained=3,
        exact=partial(frame_audio_attention, impl="reference"),
        providers={
            "xdub": partial(frame_audio_attention, impl="triton"),
            "gather-sdpa": baselines.gather_audio,
            "gather-compiled": baselines.compiled_gather_audio,
        },
        flops={"fwd": 4 * queries * 16, "bwd": 10 * queries * 16},
        bytes={"fwd": 2 * queries * 2, "bwd": 3 * queries * 2},
        small=True,
    )


def _flow(name: str, batch: int, tiny: bool) -> Bench:
    shape = (batch, 3, 3, 5, 7) if tiny else (batch, 16, 20, 64, 64)

    def make(seed: int, dtype: torch.dtype, device: str) -> list[Tensor]:
        masks = _qkv((shape[0], 1, *shape[2:]), seed + 5, dtype, device, 2)
        return [*_qkv(shape, seed, dtype, device, 3), *((m > 0.5).to(dtype) for m in masks)]

    elements = torch.Size(shape).numel()
    return Bench(
        kernel="weighted_flow_loss",
        shape=name,
        make=make,
        trained=1,
        exact=lambda *x: weighted_flow_loss(*x, motion_frames=2, impl="reference"),
        providers={
            "xdub": lambda *x: weighted_flow_loss(*x, motion_frames=2, impl="triton"),
            "eager": lambda *x: baselines.eager_loss(*x, 2),
            "compiled": lambda *x: baselines.compiled_loss(*x, 2),
        },
        # Ours writes the gradient in forward, others in backward, so only both together are comparable.
        bytes={"full": elements * 8.25},
        small=True,
    )
