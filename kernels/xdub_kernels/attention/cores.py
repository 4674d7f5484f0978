"""Attention cores with an explicit backward: a caller keeps only out and log-sum-exp.

q ``[B, L, H, D]``, k, v ``[B, M, H, D]`` -> out ``[B, L, H, D]``, log-sum-exp ``[B, H, L]`` fp32.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from xdub_kernels.attention.configs import largest_head_dim
from xdub_kernels.dispatch import UnavailableError, capability, triton_obstacle

CORES = ("triton", "flash", "cudnn", "flash_attn")
"""Cores that the fused operator can run."""
HALF = (torch.bfloat16, torch.float16)
"""Dtypes of the cores other than our own."""
FLASH_ATTN = (2, 7)
"""First version of the package whose functions have the arguments that `forward` passes."""
CUDNN_TOKENS = 64
"""Shortest sequence that cuDNN has a kernel for."""
PREFERRED = {9: ("cudnn", "flash", "triton"), 8: ("flash", "triton")}
"""Cores by major compute capability, fastest first, from published figures (FlashAttention-3, cudnn-frontend): cuDNN
leads on Hopper and trails FlashAttention-2 on A100. Measurements of `python -m perf run` will replace them."""


def obstacle(core: str, q: Tensor) -> str | None:
    """Return why ``core`` cannot run on inputs like ``q``; None if it can."""
    if core == "triton":
        if q.shape[-1] > (largest := largest_head_dim(q.dtype)):
            return f"needs a head dim of at most {largest} for {q.dtype}, got {q.shape[-1]}"
        return triton_obstacle(q)
    if core == "flash" and q.device.type == "cpu":
        return None
    if q.device.type != "cuda":
        return f"needs tensors on a CUDA device, q is on {q.device}"
    if core == "flash_attn" and _flash_attn_version() < FLASH_ATTN:
        return f"needs the package flash-attn, {'.'.join(map(str, FLASH_ATTN))} or newer"
    if q.dtype not in HALF:
        return f"needs bf16 or fp16, q is {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > (128 if core == "cudnn" else 256):
        return f"has no kernel for a head dim of {q.shape[-1]}"
    if core == "cudnn" and (q.shape[1] < CUDNN_TOKENS or max(q.shape[0], q.shape[2]) > 65_535):
        return f"has no kernel for [B, L, H] = {list(q.shape[:3])}"
    return None


def pick_core(q: Tensor, *, deterministic: bool) -> str:
    """Return the fastest core that can run on inputs like ``q``."""
    order = ("triton", "flash")
    if q.device.type == "cuda":
        order = PREFERRED.get(capability(q.device.index)[0], ("cudnn", "flash", "triton"))
    for core in order:
        # cuDNN's backward adds up in an order of its own.
        if obstacle(core, q) is None and not (deterministic and core == "cudnn"):
            return core
    return "triton"


def forward(core: str, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Run one core by name; return out and log-sum-exp. Raises ``UnavailableError`` if the core cannot run on q."""
    reason = obstacle(core, q)
    if reason is not None:
        raise UnavailableError(f"backend={core!r} {reason}")
    if q.numel() == 0:
        return torch.empty_like(q), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
    if core == "triton":
        from xdub_kernels.attention import triton_core

        return triton_core.forward(q, k, v)
    q, k, v = (_readable(x) for x in (q, k, v))
    if core == "flash_attn":
        out, lse, *_ = _flash_attn()._flash_attn_forward(
            q, k, v, dropout_p=0.0, softmax_scale=q.shape[-1] ** -0.5, causal=False, window_size_left=-1,
            window_size_right=-1, softcap=0.0, alibi_slopes=None, return_softmax=False,
        )  # fmt: skip
        return out, lse
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if core == "cudnn":
        out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
    elif q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    else:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    return out.transpose(1, 2).contiguous(), lse.reshape(q.shape[:3]).float().contiguous()


def backward(
    core: str, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, deterministic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v in the same layout; dq may be wider than q."""
    if q.numel() == 0:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    if core == "triton":
        from xdub_kernels.attention import triton_core

        return triton_core.backward(grad, q, k, v, out, lse, deterministic=deterministic)
    grad, q, k, v = (_readable(x) for x in (grad, q, k, v))
    if core == "flash_attn":
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        _flash_attn()._flash_attn_backward(
            grad, q, k, v, out, lse, dq, dk, dv,
            dropout_p=0.0, softmax_scale=q.shape[-1] ** -0.5, causal=False, window_size_left=-1,
            window_size_right=-1, softcap=0.0, alibi_slopes=None, deterministic=deterministic, rng_state=None,
        )  # fmt: skip
        return dq, dk, dv
    grad, q, k, v, out = (x.transpose(1, 2) for x in (grad, q, k, v, out))
    # Without dropout the state of a random generator is never read.
    unused = torch.zeros((), dtype=torch.int64, device=q.device)
    if core == "cudnn":
        gradients = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            grad, q, k, v, out, lse.unsqueeze(-1), unused, unused, None, None, None,
            q.shape[2], k.shape[2], 0.0, False,
        )  # fmt: skip
    elif q.device.type == "cpu":
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, False
        )
    else:
        with _deterministic(deterministic):
            gradients = torch.ops.aten._scaled_dot_product_flash_attention_backward(
                grad, q, k, v, out, lse, None, None, q.shape[2], k.shape[2], 0.0, False, unused, unused
            )
    return tuple(x.transpose(1, 2).contiguous() for x in gradients)


def _flash_attn():
    """Import the package's own functions with explicit log-sum-exp; `obstacle` has checked that they exist."""
    return importlib.import_module("flash_attn.flash_attn_interface")


def _flash_attn_version() -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in importlib.metadata.version("flash-attn").split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return (0,)


def _readable(x: Tensor) -> Tensor:
    """Return ``x`` if rows are contiguous and begin at multiples of 16 bytes, else a copy.

    torch's dispatcher makes such copies; its kernels, which are called directly, do not.
    """
    size = x.element_size()
    rows = all(stride > 0 and stride * size % 16 == 0 for stride in x.stride()[:-1])
    return x if x.stride(-1) == 1 and rows and x.data_ptr() % 16 == 0 else x.contiguous()


@contextmanager
def _deterministic(enabled: bool) -> Iterator[None]:
    """Turn on torch's global switch, the only one that its flash backward reads, without warn-only mode."""
    if not enabled:
        yield
        return
    before, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
