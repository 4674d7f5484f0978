"""The fused operations of an X-Dub training step, usable without the rest of the project. Depends on torch only.

Every function accepts ``impl="auto" | "reference" | "triton"``: plain torch, fp32 inside; or Triton kernels for A100,
H100 and H200. An explicit request never falls back to another implementation.
"""

from __future__ import annotations

from xdub_kernels.attention import attention
from xdub_kernels.audio_attention import frame_audio_attention, gate_disabled
from xdub_kernels.dispatch import UnavailableError
from xdub_kernels.flow_loss import add_noise, weighted_flow_loss
from xdub_kernels.qknorm_rope import qk_norm_rope
from xdub_kernels.rope import Rope
from xdub_kernels.rope_attention import shifted_rope_attention

__all__ = [
    "Rope",
    "UnavailableError",
    "add_noise",
    "attention",
    "frame_audio_attention",
    "gate_disabled",
    "qk_norm_rope",
    "shifted_rope_attention",
    "weighted_flow_loss",
]
