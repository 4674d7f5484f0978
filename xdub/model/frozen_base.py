"""Compact storage of the frozen linear layers in the blocks, under adapters that are trained.

| storage | bytes of a weight | scale of each output channel |
|---|---|---|
| bf16 | 2 | none |
| int8 | 1 | largest absolute weight / 127, in fp32 |
| fp8 (e4m3) | 1 | largest absolute weight / 448, in fp32 |

A layer decodes its weights for every product, forwards and backwards, to the type of its activations. Gradients flow
through the decoded weights to the adapters of earlier layers. Norms, biases, tables and layers outside the blocks keep
the type of the network, because they are small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.config import TrainConfig, nothing_frozen
from xdub.errors import UserError
from xdub.model.backbone import Backbone

Storage: TypeAlias = Literal["bf16", "int8", "fp8"]
"""Type in which weights are stored."""

LARGEST = {"int8": 127.0, "fp8": torch.finfo(torch.float8_e4m3fn).max}
"""Storage with scales -> largest code."""


def encode_weight(weight: Tensor, storage: Storage) -> tuple[Tensor, Tensor | None]:
    """Return codes of a weight [out, in] and the fp32 scale [out, 1] of its rows; bf16 has no scale.

    Codes have an integer type, so casts of the network to another floating-point type do not change them.
    """
    if storage == "bf16":
        return weight.to(torch.bfloat16).view(torch.int16), None
    weight = weight.float()
    largest = weight.abs().amax(1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0) / LARGEST[storage]
    scaled = weight / scale
    if storage == "int8":
        return scaled.round().clamp(-127, 127).to(torch.int8), scale
    return scaled.clamp(-LARGEST["fp8"], LARGEST["fp8"]).to(torch.float8_e4m3fn).view(torch.uint8), scale


def decode_weight(codes: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the weight [out, in] of codes and scale in ``dtype``; the product with the scale is rounded once."""
    numbers = {torch.int16: torch.bfloat16, torch.int8: torch.int8, torch.uint8: torch.float8_e4m3fn}
    weight = codes.view(numbers[codes.dtype]).to(dtype)
    return weight if scale is None else weight.mul_(scale)


class _Product(torch.autograd.Function):
    """Linear layer of frozen codes: the backward pass decodes the weight again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return x [..., in] W^T + b, [..., out]."""
        ctx.save_for_backward(codes, scale)
        return F.linear(x, decode_weight(codes, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        """Return the gradient [..., in] of x."""
        (grad,) = grads
        codes, scale = ctx.saved_tensors
        return grad @ decode_weight(codes, scale, grad.dtype), None, None, None


class StoredLinear(nn.Linear):
    """Frozen linear layer whose weight is stored as codes; adapters accept it as any other `nn.Linear`."""

    codes: Tensor
    scale: Tensor | None

    def __init__(self, linear: nn.Linear, storage: Storage) -> None:
        """Encode the weight of ``linear`` and share its bias."""
        # nn.Linear's constructor would allocate a weight.
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.storage = storage
        codes, scale = encode_weight(linear.weight.detach(), storage)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:  # ty: ignore[incompatible-property-override]
        """The codes: adapters read the layer's device and shape from this name, and cast to no integer type."""
        return self.codes

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output [..., out] in the type of its input [..., in]."""
        return cast(Tensor, _Product.apply(input, self.codes, self.scale, self.bias))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the scale with the network, but keep it in fp32."""
        scale = self.scale
        super()._apply(fn, recurse)
        if scale is not None and self.scale is not None:
            self.scale = scale.to(self.scale.device)
        return self

    def extra_repr(self) -> str:
        """Return sizes and storage, for `print`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, storage={self.storage}"


def store_frozen(model: Backbone, train: TrainConfig, phase: str) -> None:
    """Store the frozen linear layers in the blocks as `train.base_dtype` says, adapted layers included.

    Raise UserError for a phase that trains all layers.
    """
    if train.base_dtype is None:
        return
    frozen = [
        (module, name, child)
        for module in model.blocks.modules()
        for name, child in module.named_children()
        if type(child) is nn.Linear and not child.weight.requires_grad
    ]
    if not frozen:
        raise UserError(nothing_frozen("train.base_dtype", train.base_dtype, phase))
    if train.base_dtype != train.precision and train.base_dtype != "fp32":
        for module, name, child in frozen:
            setattr(module, name, StoredLinear(child, train.base_dtype))
