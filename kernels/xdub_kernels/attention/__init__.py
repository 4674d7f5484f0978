"""The swappable attention core: [B, L, H, D] in and out, scale 1/sqrt(D), no mask."""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention import SDPBackend

from xdub_kernels.attention import reference
from xdub_kernels.dispatch import UnavailableError, check_floating, check_like, choose

BACKENDS = ("auto", "reference", "math", "sdpa", "flash", "cudnn", "triton")


def run_backend(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """Run one core by name on checked inputs; the result may be wider than the input dtype.

    - ``"reference"``: fp32 inside, fused by torch. ``"math"``: the printed formula with its L x L matrix.
    - ``"sdpa"``: torch's own choice in the input dtype. ``"flash"``, ``"cudnn"``: that kernel or an error.
    - ``"auto"``: the reference on the CPU, ``"sdpa"`` elsewhere.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "triton":
        raise UnavailableError(
            "backend='triton': there is no Triton attention core in this version; use backend='auto'"
        )
    if backend == "cudnn" and q.device.type != "cuda":
        raise UnavailableError(f"backend='cudnn' needs tensors on a CUDA device, q is on {q.device}")
    if backend == "auto":
        backend = "reference" if q.device.type == "cpu" else "sdpa"
    if backend == "reference":
        return reference.attention_fused(q, k, v)
    if backend == "math":
        return reference.attention_math(q, k, v)
    kernel = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}.get(backend)
    return reference.attention_sdpa(q, k, v, kernel)


def attention(q: Tensor, k: Tensor, v: Tensor, *, backend: str = "auto", impl: str = "auto") -> Tensor:
    """softmax(q k^T / sqrt(D)) v.

    q ``[B, L, H, D]``, k and v ``[B, M, H, D]`` of one dtype and device. Returns ``[B, L, H, D]`` in that
    dtype. ``backend`` as in ``run_backend``. ``impl="reference"`` with ``backend="auto"`` is fp32 inside on
    every device; ``impl="auto"`` lets the backend decide. Raises ``ValueError`` naming the argument that does
    not fit.
    """
    check_floating("q", q, "B L H D")
    check_floating("k", k, "B M H D")
    check_like("v", v, "k", k)
    if k.shape[:1] + k.shape[2:] != q.shape[:1] + q.shape[2:]:
        raise ValueError(f"k must match q's B, H and D {tuple(q.shape)}, got {tuple(k.shape)}")
    if (k.dtype, k.device) != (q.dtype, q.device):
        raise ValueError(f"k must have q's dtype and device {q.dtype} {q.device}, got {k.dtype} {k.device}")
    choose(impl, "attention")
    if impl == "reference" and backend == "auto":
        backend = "reference"
    return run_backend(q, k, v, backend).to(q.dtype)
