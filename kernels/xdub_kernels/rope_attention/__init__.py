"""Self-attention of editor and generator: q/k norm, shifted 3D RoPE, softmax attention (paper B.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xdub_kernels.attention import check_backend, cores, run_backend
from xdub_kernels.dispatch import UnavailableError, check_like, choose
from xdub_kernels.qknorm_rope import qk_norm_rope
from xdub_kernels.qknorm_rope.validate import check_qk
from xdub_kernels.rope_attention import op, reference


def shifted_rope_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
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
    backend: str = "auto",
    impl: str = "auto",
    deterministic: bool | None = None,
) -> Tensor:
    """Attention among target and reference tokens; reference tokens sit beside the target in space.

    Args:
        q, k, v: ``[B, L, H, D]``, one dtype and device; L = (f + reference_frames) * h * w, tokens run frame,
            row, column. D is even.
        grid: (f, h, w) of the target. (1, h, w) with ``reference_frames=0`` is 2D attention inside frames
            that were folded into B.
        reference_frames: 0, 1 or f. A single reference frame sits at frame position 0.
        order: ``"target_first"`` or ``"reference_first"``: which segment comes first in L.
        q_weight, k_weight: weights of the RMSNorm, ``[D]`` for norm "head", ``[H*D]`` for "hidden"; None =
            ones.
        norm: ``"none"``, ``"head"`` (RMS over D) or ``"hidden"`` (RMS over H*D together).
        eps, theta: of the norm and of the rotation frequencies theta^(-2i / axis_dim).
        axes_dim: channels for (frame, row, column); default (D - 4*(D//6), 2*(D//6), 2*(D//6)).
        backend: attention core. With the fused operator: ``"triton"`` (our own), ``"flash"``, ``"cudnn"`` (torch's),
            ``"flash_attn"`` (the package), ``"auto"`` = the fastest known for the device. Others run behind
            a separate prologue, see ``xdub_kernels.attention.run_backend``.
        impl: ``"triton"``: the fused operator; ``"reference"``: plain torch, fp32 inside everywhere; ``"auto"``:
            the fused operator on a GPU that has it, else the reference (on the CPU with an fp32 core).
        deterministic: whether the fused operator's backward must give the same bits on every run (7 matrix products
            instead of 5); None: as ``torch.are_deterministic_algorithms_enabled()`` says.

    Target token (k, i, j) is rotated by its place, reference token (k, i, j) by (k, i + h, j + w); channels
    pair up as (0, 1), (2, 3), ...; scores are scaled by 1/sqrt(D).

    Returns:
        ``[B, L, H, D]`` in q's dtype.

    Raises:
        ValueError: naming the argument whose shape, dtype, device or value does not fit.
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
    check_like("v", v, "q", q)
    check_backend(backend)
    where = dict(
        grid=sizes,
        reference_frames=reference_frames,
        order=order,
        norm=norm,
        eps=eps,
        theta=theta,
        axes_dim=axes,
    )
    weights = dict(q_weight=q_weight, k_weight=k_weight)
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    which = choose(impl, "shifted_rope_attention", q)
    if which == "triton" and backend == "auto":
        core = cores.pick_core(q, deterministic=deterministic)
        if impl == "auto" and cores.obstacle(core, q) is not None:
            which = "reference"
        else:
            backend = core
    if which == "reference":
        if impl == "reference" and backend == "auto":
            backend = "reference"
        return reference.shifted_rope_attention(q, k, v, backend=backend, **where, **weights)
    if backend not in cores.CORES:
        rotated_q, rotated_k = qk_norm_rope(q, k, **where, **weights, impl="triton")
        return run_backend(rotated_q, rotated_k, v, backend).to(q.dtype)
    if (reason := cores.obstacle(backend, q)) is not None:
        raise UnavailableError(f"backend={backend!r} {reason}")
    if deterministic and backend == "cudnn":
        raise UnavailableError(
            "backend='cudnn' adds up in an order of its own: use another with deterministic=True"
        )
    return op.rope_attention_op(q, k, v, q_weight, k_weight, backend, deterministic, *where.values())[0]
