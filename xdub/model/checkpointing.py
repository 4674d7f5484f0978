"""Activation checkpointing of a block: memory against FLOPs.

``none`` keeps everything. ``full`` keeps the block's input and runs the block once more. ``attention`` also keeps the
result of self-attention (its output, and the log-sum-exp that its backward needs), so everything is recomputed but
the attention. At 40,960 tokens attention has two thirds of a block's FLOPs and keeps two of about thirty tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from xdub.config import Policy

POLICIES: tuple[Policy, ...] = get_args(Policy)
"""All policies, the cheapest in FLOPs first."""

ATTENTION_OPS = frozenset(
    {
        "xdub_kernels::shifted_rope_attention",
        "xdub_kernels::attention",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "flash_attn::_flash_attn_forward",
    }
)
"""Attention operators, by name, because not every build of torch has all of them, and flash-attn's operator exists only
after the import of that package."""


def run_block(policy: Policy, block: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Run ``block(*arguments)`` under a checkpoint policy."""
    if policy == "none":
        return block(*arguments)
    if policy == "full":
        return checkpoint(block, *arguments, use_reentrant=False)
    assert policy == "attention", policy
    contexts = partial(create_selective_checkpoint_contexts, keep_self_attention)
    return checkpoint(block, *arguments, use_reentrant=False, context_fn=contexts)


def keep_self_attention(_: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Decide for an operator of a checkpointed block whether its result is kept; torch calls it.

    Cross-attention to a prompt of a few rows, or to 16 rows of audio, costs less than the memory of its output.
    """
    # The first two arguments are queries and keys.
    if op.name().split(".")[0] in ATTENTION_OPS and args[0].shape == args[1].shape:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
