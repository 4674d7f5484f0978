"""The swappable attention core: [B, L, H, D] in and out, scale 1/sqrt(D), no mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from xdub_kernels.attention import cores, op, reference
from xdub_kernels.dispatch import UnavailableError, check_floating, check_like, choose, like_gpu

BACKENDS = ("auto", "reference", "math", "sdpa", "flash", "cudnn", "flash_attn", "triton")


def check_backend(backend: str) -> None:
    """Raise ``ValueError`` for an unknown core."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def run_backend(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """Run one core by name on checked inputs; the result may be wider than the input dtype.

    - ``"reference"``: fp32 inside, fused by torch. ``"math"``: the printed formula with its L x L matrix.
    - ``"sdpa"``: torch's own choice in the input dtype. ``"flash"``, ``"cudnn"``: that kernel of torch, or an error.
    - ``"triton"``: this package's kernels. ``"flash_attn"``: the package of that name.
    - ``"auto"``: the reference on the CPU, ``"sdpa"`` elsewhere.

    An explicit request that cannot run raises ``UnavailableError`` with the reason.
    """
    check_backend(backend)
    if backend == "auto":
        if q.device.type == "meta" and like_gpu(q):
            # It keeps for backward what torch's fused kernels keep; on meta torch would materialise the scores.
            return op.attention_op(q, k, v, "triton", torch.are_deterministic_algorithms_enabled())[0]
        backend = "reference" if q.device.type == "cpu" else "sdpa"
    if backend == "reference":
        return reference.attention_fused(q, k, v)
    if backend == "math":
        return reference.attention_math(q, k, v)
    if backend in ("triton", "flash_attn"):
        if (reason := cores.obstacle(backend, q)) is not None:
            raise UnavailableError(f"backend={backend!r} {reason}")
        return op.attention_op(q, k, v, backend, torch.are_deterministic_algorithms_enabled())[0]
    if backend == "cudnn" and q.device.type != "cuda":
        raise UnavailableError(f"backend='cudnn' needs tensors on a CUDA device, q is on {q.device}")
    kernel = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}.get(backend)
    return reference.attention_sdpa(q, k, v, kernel)


def attention(q: Tensor, k: Tensor, v: Tensor, *, backend: str = "auto", impl: str = "auto") -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v.

    q is ``[B, L, H, D]``, k and v are ``[B, M, H, D]``, of one dtype and device; the result is ``[B, L, H, D]`` in
    that dtype. ``backend`` as in ``run_backend``. ``impl="reference"`` with ``backend="auto"`` is fp32 inside on
    every device, ``impl="triton"`` is the backend of that name; with ``impl="auto"`` the backend decides. Raises
    ``ValueError`` naming the argument that does not fit.
    """
    check_floating("q", q, "B L H D")
    check_floating("k", k, "B M H D")
    check_like("v", v, "k", k)
    if k.shape[:1] + k.shape[2:] != q.shape[:1] + q.shape[2:]:
        raise ValueError(f"k must match q's B, H and D {tuple(q.shape)}, got {tuple(k.shape)}")
    if (k.dtype, k.device) != (q.dtype, q.device):
        raise ValueError(f"k must have q's dtype and device {q.dtype} {q.device}, got {k.dtype} {k.device}")
    if impl == "triton" and backend == "auto":
        choose(impl, "attention", q)
        backend = "triton"
    elif impl == "triton" and backend != "triton":
        raise ValueError(f"backend must be 'triton' or 'auto' with impl='triton', got {backend!r}")
    elif choose(impl, "attention", q) == "reference" and impl == "reference" and backend == "auto":
        backend = "reference"
    return run_backend(q, k, v, backend).to(q.dtype)
