"""Every launch that may happen on a GPU, at the sizes of the 1B recipe; `python -m perf static` builds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xdub_kernels import Rope
from xdub_kernels.attention.configs import KERNELS, Config, choices

HEADS, DIM = 12, 128
"""Attention heads and channels per head of the 1B recipe."""
EDITOR = (20, 32, 32)
"""Latent frames, rows and columns of patches: 77 frames of 512 x 512 px."""


@dataclass(frozen=True)
class Case:
    """One launch to build."""

    name: str
    """Key of the case in the baseline."""
    kernel: str
    """Function that is checked; the launch may build others beside it."""
    launch: Callable[[], object]
    """Call of the product's launch function on meta tensors."""
    matmul: bool = False
    """True if the kernel must use the tensor cores."""
    wide: bool = False
    """True if tiles have the 64 rows of a wgmma of sm_90, which the kernel must use."""
    pipelined: bool = False
    """True if the kernel must load ahead of the products: asynchronous copies on sm_80."""
    memory_bound: bool = False
    """True if the kernel must read and write 16 bytes at a time."""
    tma: bool = False
    """True if the kernel must load through the tensor memory accelerator."""
    specialised: bool = False
    """True if the kernel must specialise its warps."""


def cases(architecture: int) -> Iterator[Case]:
    """Yield all launches for one architecture: every configuration, on full tiles and on ragged ones."""
    yield from _attention(architecture)
    yield from _prologue()
    yield from _audio()
    yield from _flow()


def _meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _attention(architecture: int) -> Iterator[Case]:
    from xdub_kernels.attention import triton_core

    def forward(length: int, dim: int, dtype: torch.dtype, config: Config):
        q, k, v = (_meta(1, length, HEADS, dim, dtype=dtype) for _ in range(3))
        return lambda: triton_core.forward(q, k, v, config)

    def backward(length: int, dim: int, dtype: torch.dtype, kernel: str, config: Config):
        grad, q, k, v, out = (_meta(1, length, HEADS, dim, dtype=dtype) for _ in range(5))
        lse = _meta(1, HEADS, length, dtype=torch.float32)
        deterministic = kernel != "bwd_kv_add"
        return lambda: triton_core.backward(
            grad, q, k, v, out, lse, deterministic=deterministic, configs={kernel: config}
        )

    sizes = [(torch.bfloat16, 128), (torch.bfloat16, 64), (torch.bfloat16, 256), (torch.float32, 128)]
    for kernel in KERNELS:
        for dtype, dim in sizes:
            for config in choices(kernel, architecture, dim, dtype):
                for length, tiles in ((40_960, "full"), (40_957, "ragged")):
                    make = (
                        forward(length, dim, dtype, config)
                        if kernel == "fwd"
                        else backward(length, dim, dtype, kernel, config)
                    )
                    short = str(dtype).removeprefix("torch.")
                    yield Case(
                        f"attention_{kernel} d{dim} {short} {label(config)} {tiles}",
                        f"attention_{kernel.removesuffix('_add')}",
                        make,
                        matmul=True,
                        wide=(config.keys if "kv" in kernel else config.queries) >= 64,
                        pipelined=config.stages > 1,
                        tma=config.tma,
                        specialised=config.specialise,
                    )


def _prologue() -> Iterator[Case]:
    from xdub_kernels.qknorm_rope import triton_kernels

    frames, height, width = EDITOR
    rope = Rope(EDITOR, frames, axes_dim=(44, 42, 42))
    qkv = _meta(1, 2 * frames * height * width, 3, HEADS, DIM)
    for norm, size in (("none", None), ("head", DIM), ("hidden", HEADS * DIM)):
        weight = None if size is None else _meta(size)

        def forward(weight: Tensor | None = weight, norm: str = norm):
            return triton_kernels.forward(
                qkv[:, :, 0], qkv[:, :, 1], weight, weight, rope, norm=norm, eps=1e-6
            )

        def backward(weight: Tensor | None = weight, norm: str = norm):
            grad, q = _meta(*qkv[:, :, 0].shape), qkv[:, :, 0]
            return triton_kernels.backward_one(grad, q, weight, rope, norm=norm, eps=1e-6)

        yield Case(f"qk_norm_rope_fwd {norm}", "qk_norm_rope_fwd", forward, memory_bound=True)
        yield Case(f"qk_norm_rope_bwd {norm}", "qk_norm_rope_bwd", backward, memory_bound=True)


def _audio() -> Iterator[Case]:
    from xdub_kernels.audio_attention import triton_kernels

    frames, height, width = EDITOR
    q = _meta(1, frames, height * width, HEADS, DIM)
    kv = _meta(1, 162, 2, HEADS, DIM)
    starts = _meta(1, frames, dtype=torch.int64)
    for gate in (None, _meta(1, dtype=torch.bool)):
        name = "plain" if gate is None else "gated"
        yield Case(
            f"audio_attention_fwd {name}",
            "audio_attention_fwd",
            lambda gate=gate: triton_kernels.forward(q, kv[:, :, 0], kv[:, :, 1], starts, 16, gate),
            matmul=True,
            memory_bound=True,
        )
        yield Case(
            f"audio_attention_bwd {name}",
            "audio_attention_bwd",
            lambda gate=gate: triton_kernels.backward(q, q, kv[:, :, 0], kv[:, :, 1], starts, 16, gate),
            matmul=True,
            memory_bound=True,
        )


def _flow() -> Iterator[Case]:
    from xdub_kernels.flow_loss import triton_kernels

    latents = _meta(64, 16, 20, 64, 64)
    masks = _meta(64, 1, 20, 64, 64)
    motion = _meta(64, dtype=torch.int64)
    yield Case(
        "flow_loss_fwd",
        "flow_loss_fwd",
        lambda: triton_kernels.flow_loss(latents, latents, latents, masks, masks, motion, 0.3, 0.3),
        memory_bound=True,
    )
    yield Case(
        "add_noise_fwd",
        "add_noise_fwd",
        lambda: triton_kernels.add_noise(latents, latents, _meta(64, dtype=torch.float32), motion),
        memory_bound=True,
    )


def label(config: Config) -> str:
    """Return the short name of a configuration, e.g. 128x64 w8 s3."""
    kind = " tma" * config.tma + " ws" * config.specialise
    return f"{config.queries}x{config.keys} w{config.warps} s{config.stages}{kind}"
