"""Attention cores with an explicit backward: out and log-sum-exp are all that a caller has to keep.

q ``[B, L, H, D]``, k, v ``[B, M, H, D]`` -> out ``[B, L, H, D]``, log-sum-exp ``[B, H, L]`` fp32.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor

from xdub_kernels.attention.configs import largest_head_dim
from xdub_kernels.dispatch import UnavailableError, capability, triton_obstacle

CORES = ("triton", "flash", "cudnn", "flash_attn")
HALF = (torch.bfloat16, torch.float16)
PREFERRED = {9: ("cudnn", "flash", "triton"), 8: ("flash", "triton")}
"""By major compute capability, fastest first, from published figures (FlashAttention-3, cudnn-frontend): cuDNN leads on
Hopper and trails FlashAttention-2 on A100. To be replaced by what `python -m perf run` measures."""


def obstacle(core: str, q: Tensor) -> str | None:
    """Why ``core`` cannot run on inputs like ``q``; None if it can."""
    if core == "triton":
        if q.shape[-1] > (largest := largest_head_dim(q.dtype)):
            return f"needs a head dim of at most {largest} for {q.dtype}, got {q.shape[-1]}"
        return triton_obstacle(q)
    if core == "flash" and q.device.type == "cpu":
        return None
    if q.device.type != "cuda":
        return f"needs tensors on a CUDA device, q is on {q.device}"
    if core == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
        return "needs the package flash-attn, which is not installed"
    if q.dtype not in HALF:
        return f"needs bf16 or fp16, q is {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > (128 if core == "cudnn" else 256):
        return f"has no kernel for a head dim of {q.shape[-1]}"
    return None


def pick_core(q: Tensor, *, deterministic: bool) -> str:
    """The fastest core that can run on inputs like ``q``."""
    order = ("triton", "flash")
    if q.device.type == "cuda":
        order = PREFERRED.get(capability(q.device.index)[0], ("cudnn", "flash", "triton"))
    for core in order:
        # cuDNN's backward adds up in an order of its own.
        if obstacle(core, q) is None and not (deterministic and core == "cudnn"):
            return core
    return "triton"


def forward(core: str, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Run one core by name. UnavailableError if it cannot run here."""
    reason = obstacle(core, q)
    if reason is not None:
        raise UnavailableError(f"backend={core!r} {reason}")
    if core == "triton":
        from xdub_kernels.attention import triton_core

        return triton_core.forward(q, k, v)
    if core == "flash_attn":
        out, lse, *_ = _flash_attn()._flash_attn_forward(
            q.contiguous(), k.contiguous(), v.contiguous(),
            dropout_p=0.0, softmax_scale=q.shape[-1] ** -0.5, causal=False, window_size_left=-1,
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
    """Gradients of q, k, v in the same layout; dq may be wider than q."""
    if core == "triton":
        from xdub_kernels.attention import triton_core

        return triton_core.backward(grad, q, k, v, out, lse, deterministic=deterministic)
    if core == "flash_attn":
        q, k, v = (x.contiguous() for x in (q, k, v))
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        _flash_attn()._flash_attn_backward(
            grad.contiguous(), q, k, v, out, lse, dq, dk, dv,
            dropout_p=0.0, softmax_scale=q.shape[-1] ** -0.5, causal=False, window_size_left=-1,
            window_size_right=-1, softcap=0.0, alibi_slopes=None, deterministic=deterministic, rng_state=None,
        )  # fmt: skip
        return dq, dk, dv
    grad, q, k, v, out = (x.transpose(1, 2) for x in (grad, q, k, v, out))
    # There is no dropout, so nobody reads the state of a random generator.
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
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, out, lse, None, None, q.shape[2], k.shape[2], 0.0, False, unused, unused
        )
    return tuple(x.transpose(1, 2).contiguous() for x in gradients)


def _flash_attn():
    """The package's own functions with explicit log-sum-exp; they are there where `obstacle` says so."""
    return importlib.import_module("flash_attn.flash_attn_interface")
