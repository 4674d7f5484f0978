"""q/k RMSNorm and shifted 3D RoPE in one pass: the prologue of ``shifted_rope_attention``, usable alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from xdub_kernels.dispatch import choose
from xdub_kernels.qknorm_rope import op, reference
from xdub_kernels.qknorm_rope.validate import check_qk


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    *,
    grid: Sequence[int],
    reference_frames: int,
    order: str = "target_first",
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    norm: str = "none",
    eps: float = 1e-6,
    theta: float = 10000.0,
    axes_dim: Sequence[int] | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Norm and rotate q and k, both [B, L, H, D]; arguments as in ``shifted_rope_attention``.

    Returns q and k in the input dtype. ``impl="auto"`` is Triton on a GPU that has it, else the reference.
    Raises ``ValueError`` naming the argument that does not fit.
    """
    sizes, axes = check_qk(
        q,
        k,
        grid=grid,
        reference_frames=reference_frames,
        order=order,
        q_weight=q_weight,
        k_weight=k_weight,
        norm=norm,
        axes_dim=axes_dim,
    )
    where = dict(
        grid=sizes,
        reference_frames=reference_frames,
        order=order,
        norm=norm,
        eps=eps,
        theta=theta,
        axes_dim=axes,
    )
    if choose(impl, "qk_norm_rope", q) == "triton":
        return op.qk_norm_rope_op(q, k, q_weight, k_weight, *where.values())
    rotated_q, rotated_k = reference.qk_norm_rope(q, k, q_weight=q_weight, k_weight=k_weight, **where)
    return rotated_q.to(q.dtype), rotated_k.to(k.dtype)
