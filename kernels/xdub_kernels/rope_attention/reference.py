"""Attention over target and reference tokens with shifted 3D RoPE (paper B.4): prologue, then the core."""

from __future__ import annotations

from torch import Tensor

from xdub_kernels.attention import run_backend
from xdub_kernels.qknorm_rope.reference import qk_norm_rope
from xdub_kernels.rope import Rope


def shifted_rope_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: Rope,
    *,
    backend: str,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    norm: str,
    eps: float,
) -> Tensor:
    """Norm and rotate q and k in fp32, then attend; return [B, L, H, D] in q's dtype.

    A core that works in fp32 gets the unrounded q and k; one that works in the input dtype gets them rounded once.
    """
    rotated_q, rotated_k = qk_norm_rope(q, k, rope, q_weight=q_weight, k_weight=k_weight, norm=norm, eps=eps)
    is_fp32_core = backend in ("reference", "math") or (backend == "auto" and q.device.type == "cpu")
    if not is_fp32_core:
        rotated_q, rotated_k = rotated_q.to(q.dtype), rotated_k.to(k.dtype)
    return run_backend(rotated_q, rotated_k, v, backend).to(q.dtype)
