"""Launches of the package's attention kernels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
from torch import Tensor

from xdub_kernels.attention import triton_kernels as kernels
from xdub_kernels.attention.configs import Config, choices
from xdub_kernels.triton_common import architecture, device_context, padded, rows_last_contiguous, strides

DELTA_ROWS = 64
"""Rows of a program of `attention_delta`."""


def forward(q: Tensor, k: Tensor, v: Tensor, config: Config | None = None) -> tuple[Tensor, Tensor]:
    """Return attention of q [B, L, H, D] to k, v [B, M, H, D], contiguous, and its log-sum-exp [B, H, L] fp32."""
    q, k, v = (rows_last_contiguous(x) for x in (q, k, v))
    batch, length, heads, dim = q.shape
    keys = k.shape[1]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    if out.numel() == 0:
        return out, lse
    if keys == 0:
        return out.zero_(), lse.fill_(float("-inf"))
    c = config or pick("fwd", q, k, v)
    with device_context(q):
        if c.tma:
            triton.set_allocator(_scratch)
        kernels.attention_fwd[(triton.cdiv(length, c.queries) * batch * heads,)](
            Q=q, K=k, V=v, OUT=out, LSE=lse, **_qkv_strides(q, k, v), H=heads, L=length, M=keys, scale=dim**-0.5,
            D=dim, BD=padded(dim), **_tiles(c, length, keys), TMA=c.tma, SPECIALISE=c.specialise,
            num_warps=c.warps, num_stages=c.stages,
        )  # fmt: skip
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    deterministic: bool,
    configs: Mapping[str, Config] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v [B, L | M, H, D], contiguous.

    With ``deterministic`` they have the same bits on every run and cost 7 matrix products. Otherwise they cost 5 where
    a configuration for that exists, and dq, summed by atomics, is fp32; dk and dv have the inputs' dtype. ``configs``,
    by kernel, replaces the choice of `pick`.
    """
    grad, q, k, v = (rows_last_contiguous(x) for x in (grad, q, k, v))
    batch, length, heads, dim = q.shape
    keys = k.shape[1]
    dk, dv = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    if q.numel() == 0 or keys == 0:
        return torch.zeros_like(q), dk.zero_(), dv.zero_()
    split = deterministic or not choices("bwd_kv_add", architecture(q), padded(dim), q.dtype)
    delta = torch.empty_like(lse)
    sizes = {"D": dim, "BD": padded(dim)}
    shared = dict(
        Q=q, K=k, V=v, DO=grad, LSE=lse, DELTA=delta, **_qkv_strides(q, k, v), **strides(grad, "g_b g_l g_h"),
        H=heads, L=length, M=keys, scale=dim**-0.5,
    )  # fmt: skip
    with device_context(q):
        kernels.attention_delta[(triton.cdiv(length, DELTA_ROWS) * batch * heads,)](
            OUT=out, DO=grad, DELTA=delta, **strides(grad, "g_b g_l g_h"), H=heads, L=length, **sizes,
            BQ=DELTA_ROWS,
        )  # fmt: skip
        if split:
            dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
            c = _chosen("bwd_q", q, configs)
            kernels.attention_bwd_q[(triton.cdiv(length, c.queries) * batch * heads,)](
                **shared, DQ=dq, **sizes, **_tiles(c, length, keys), num_warps=c.warps, num_stages=c.stages
            )
        else:
            dq = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
        c = _chosen("bwd_kv" if split else "bwd_kv_add", q, configs, grad)
        if c.tma:
            triton.set_allocator(_scratch)
        kernels.attention_bwd_kv[(triton.cdiv(keys, c.keys) * batch * heads,)](
            **shared, DQ=dq, DK=dk, DV=dv, **sizes, **_tiles(c, length, keys), ADD_DQ=not split, TMA=c.tma,
            num_warps=c.warps, num_stages=c.stages,
        )  # fmt: skip
    return dq, dk, dv


def _chosen(kernel: str, q: Tensor, configs: Mapping[str, Config] | None, *loaded: Tensor) -> Config:
    return configs[kernel] if configs and kernel in configs else pick(kernel, q, *loaded)


def pick(kernel: str, q: Tensor, *loaded: Tensor) -> Config:
    """Return the first configuration that the tensors loaded by the kernel allow."""
    dim = q.shape[-1]
    for config in choices(kernel, architecture(q), padded(dim), q.dtype):
        if not config.tma or (padded(dim) == dim and all(_tma_fits(x) for x in (q, *loaded))):
            return config
    raise AssertionError(f"every configuration of {kernel} for head dim {dim} needs TMA")


def _tma_fits(x: Tensor) -> bool:
    """Return whether rows begin at multiples of 16 bytes and are not one row repeated."""
    size = x.element_size()
    return x.data_ptr() % 16 == 0 and all(
        stride > 0 and stride * size % 16 == 0 for stride in x.stride()[:-1]
    )


def _tiles(c: Config, length: int, keys: int) -> dict[str, int]:
    return dict(BQ=c.queries, BK=c.keys, EVEN_Q=length % c.queries == 0, EVEN_K=keys % c.keys == 0)


def _qkv_strides(q: Tensor, k: Tensor, v: Tensor) -> dict[str, int]:
    return strides(q, "q_b q_l q_h") | strides(k, "k_b k_l k_h") | strides(v, "v_b v_l v_h")


def _scratch(size: int, alignment: int, stream: int | None) -> Tensor:
    """Allocate memory for descriptors that are built on the device."""
    return torch.empty(size, device="cuda", dtype=torch.int8)
