"""Self-attention of editor and generator: q/k norm, shifted 3D RoPE, softmax attention (paper B.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.attention import check_backend, cores, run_backend
from xdub_kernels.dispatch import UnavailableError, check_like, choose
from xdub_kernels.qknorm_rope import qk_norm_rope
from xdub_kernels.qknorm_rope.validate import check_qk
from xdub_kernels.rope import Rope
from xdub_kernels.rope_attention import op, reference


def shifted_rope_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: Rope,
    *,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    norm: str = "none",
    eps: float = 1e-6,
    backend: str = "auto",
    impl: str = "auto",
    deterministic: bool | None = None,
) -> Tensor:
    """Return attention among target and reference tokens; scores are scaled by 1/sqrt(D).

    Args:
        q, k, v: ``[B, L, H, D]``, one dtype and device; L = ``rope.tokens``, D is even.
        rope: positions and rotation of the tokens.
        q_weight, k_weight: weights of the RMSNorm, ``[D]`` for norm "head", ``[H*D]`` for "hidden"; None =
            ones.
        norm: ``"none"``, ``"head"`` (RMS over D) or ``"hidden"`` (RMS over H*D together).
        eps: added to the mean square inside the norm's square root.
        backend: attention core. With the fused operator: ``"triton"`` (this package's kernels), ``"flash"`` and
            ``"cudnn"`` (torch's), ``"flash_attn"`` (the package), ``"auto"`` = the first of ``cores.PREFERRED`` that
            can run. Others run behind a separate prologue, see ``xdub_kernels.attention.run_backend``.
        impl: ``"triton"``: the fused operator; ``"reference"``: plain torch, fp32 inside everywhere; ``"auto"``:
            the fused operator on a GPU that has it, else the reference (on the CPU with an fp32 core).
        deterministic: whether the fused operator's backward must return the same bits on every run (7 matrix products
            instead of 5); None: follow ``torch.are_deterministic_algorithms_enabled()``.

    Returns:
        ``[B, L, H, D]`` in q's dtype.

    Raises:
        ValueError: naming the argument whose shape, dtype, device or value does not fit.
    """
    check_qk(q, k, rope, q_weight=q_weight, k_weight=k_weight, norm=norm)
    if rope.share != (0, 1):
        raise ValueError(
            f"rope must hold all tokens, because they attend to one another; its share is {rope.share}"
        )
    check_like("v", v, "q", q)
    check_backend(backend)
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    implementation = choose(impl, "shifted_rope_attention", q)
    if implementation == "triton" and backend == "auto":
        core = cores.pick_core(q, deterministic=deterministic)
        if impl == "auto" and cores.obstacle(core, q) is not None:
            implementation = "reference"
        else:
            backend = core
    if implementation == "reference":
        if impl == "reference" and backend == "auto":
            backend = "reference"
        return reference.shifted_rope_attention(
            q, k, v, rope, backend=backend, q_weight=q_weight, k_weight=k_weight, norm=norm, eps=eps
        )
    if backend not in cores.CORES:
        rotated_q, rotated_k = qk_norm_rope(
            q, k, rope, q_weight=q_weight, k_weight=k_weight, norm=norm, eps=eps, impl="triton"
        )
        return run_backend(rotated_q, rotated_k, v, backend).to(q.dtype)
    if (reason := cores.obstacle(backend, q)) is not None:
        raise UnavailableError(f"backend={backend!r} {reason}")
    if deterministic and backend == "cudnn":
        raise UnavailableError(
            "backend='cudnn' adds up in an order of its own: use another with deterministic=True"
        )
    return op.rope_attention_op(q, k, v, q_weight, k_weight, backend, deterministic, norm, eps, *rope.flat())[
        0
    ]
