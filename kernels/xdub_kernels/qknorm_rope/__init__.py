"""q/k RMSNorm and shifted 3D RoPE in one pass: the prologue of ``shifted_rope_attention``, usable alone."""

from __future__ import annotations

from torch import Tensor

from xdub_kernels.dispatch import choose
from xdub_kernels.qknorm_rope import op, reference
from xdub_kernels.qknorm_rope.validate import check_qk
from xdub_kernels.rope import Rope


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    rope: Rope,
    *,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    norm: str = "none",
    eps: float = 1e-6,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Norm and rotate q and k, both [B, L, H, D]; arguments as in ``shifted_rope_attention``.

    Returns q and k in the input dtype. ``impl="auto"`` runs Triton on a GPU that has it, else the reference.
    Raises ``ValueError`` naming the argument that does not fit.
    """
    check_qk(q, k, rope, q_weight=q_weight, k_weight=k_weight, norm=norm)
    if choose(impl, "qk_norm_rope", q) == "triton":
        return op.qk_norm_rope_op(q, k, q_weight, k_weight, norm, eps, *rope.flat())
    rotated_q, rotated_k = reference.qk_norm_rope(
        q, k, rope, q_weight=q_weight, k_weight=k_weight, norm=norm, eps=eps
    )
    return rotated_q.to(q.dtype), rotated_k.to(k.dtype)
