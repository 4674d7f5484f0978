"""MobileFaceNet (Chen et al. 2018) in torch, read from a TensorFlow Lite file: 192-d, 112 px, 1.3 million parameters.

TensorFlow's ``same`` padding of a convolution with stride 2 adds one row below and one column to the right. The file
has no PReLU operator and computes relu(x) + m (x - |x|) instead, so the slope of negative values is 2 m.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.perception.identity.base import FivePointIdentity
from xdub.perception.tflite import Graph, Operator, read_tflite

STAGES = ((128, 64, 4), (256, 128, 6), (512, 128, 2))
"""(inner channels, channels, residual blocks) of each stage; a stage begins with a block that halves the picture."""
RESIDUAL_EXPANSION = 2
"""Inner channels of a residual block over its channels."""


class ConvUnit(nn.Module):
    """Convolution and PReLU; ``groups`` equal to the channels makes it depthwise, ``linear`` leaves the PReLU out."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        linear: bool = False,
        padded: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, groups=groups)
        self.prelu = None if linear else nn.PReLU(outputs)
        before = (size - stride) // 2 if padded else 0
        after = size - stride - before if padded else 0
        self.padding = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.conv(F.pad(x, self.padding))
        return y if self.prelu is None else self.prelu(y)


class Bottleneck(nn.Module):
    """Expand, filter each channel, project; a block with stride 1 adds its input."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.units = nn.Sequential(
            ConvUnit(inputs, inner),
            ConvUnit(inner, inner, 3, stride, groups=inner),
            ConvUnit(inner, outputs, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.units(x)
        return x + y if self.residual else y


class MobileFaceNetIdentity(FivePointIdentity):
    """192-d embedding, trained for the cosine of faces that are aligned by five points."""

    name = "mobilefacenet"

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            ConvUnit(3, 64, 3, 2),
            ConvUnit(64, 64, 3, groups=64),
            ConvUnit(64, 64, linear=True),
        ]
        inputs = 64
        for inner, channels, blocks in STAGES:
            layers.append(Bottleneck(inputs, inner, channels, 2))
            expanded = RESIDUAL_EXPANSION * channels
            layers += [Bottleneck(channels, expanded, channels, 1) for _ in range(blocks)]
            inputs = channels
        layers += [
            ConvUnit(inputs, 512),
            ConvUnit(512, 512, 7, groups=512, linear=True, padded=False),
            ConvUnit(512, 512, linear=True),
            ConvUnit(512, 192, linear=True),
        ]
        self.layers = nn.Sequential(*layers)

    def embed_chips(self, chips: Tensor) -> Tensor:
        """Map aligned faces [N, 3, 112, 112] in [0, 1] to [N, 192]."""
        return self.layers((chips * 255 - 127.5) / 128).flatten(1)

    @classmethod
    def load(cls, path: str | Path | None = None) -> MobileFaceNetIdentity:
        """Load the .tflite file, by default the registered one (role ``identity_mobilefacenet``).

        Raises:
            UserError: the file is missing, damaged, or holds another network.
        """
        if path is None:
            from xdub.perception.registry import fetch

            path = fetch("identity_mobilefacenet")
        network = cls()
        _Loader(read_tflite(path), path).load(network)
        return network


class _Loader:
    """A walk along the operators of a file that sets one module after the other and checks that both graphs agree."""

    def __init__(self, graph: Graph, path: str | Path) -> None:
        self._graph, self._path = graph, path
        # Number of operators that were read.
        self._count = 0

    @torch.no_grad()
    def load(self, network: MobileFaceNetIdentity) -> None:
        """Set all parameters."""
        x = self._graph.inputs[0] if self._graph.inputs else -1
        for layer in network.layers:
            x = self._load_block(layer, x) if isinstance(layer, Bottleneck) else self._load_unit(layer, x)
        x = self._read("reshape", x, None).outputs[0]
        if self._count != len(self._graph.operators) or self._graph.outputs != (x,):
            raise self._foreign(f"the graph goes on after operator {self._count - 1}")

    def _load_block(self, block: Bottleneck, x: int) -> int:
        """Set the parameters of a block whose input is the tensor of number ``x``; return the number of its output."""
        y = x
        for unit in block.units:
            y = self._load_unit(unit, y)
        return self._read("add", y, x).outputs[0] if block.residual else y

    def _load_unit(self, unit: nn.Module, x: int) -> int:
        assert isinstance(unit, ConvUnit)
        conv, depthwise = unit.conv, unit.conv.groups > 1
        operator = self._read("depthwise_conv" if depthwise else "conv", x, None, None)
        # A kernel of one pixel needs no padding, so both names mean the same.
        padded = conv.kernel_size == (1, 1) or (operator.padding == "same") == any(unit.padding)
        if operator.stride != conv.stride[0] or not padded:
            raise self._foreign(f"operator {self._count - 1} has another stride or padding")
        # The file stores kernels as [outputs, H, W, inputs], depthwise kernels as [1, H, W, channels].
        self._copy(conv.weight, operator.inputs[1], (3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        assert conv.bias is not None
        self._copy(conv.bias, operator.inputs[2], (0,))
        y = operator.outputs[0]
        return y if unit.prelu is None else self._load_prelu(unit.prelu, y)

    def _load_prelu(self, prelu: nn.PReLU, x: int) -> int:
        positive = self._read("relu", x).outputs[0]
        magnitude = self._read("abs", x).outputs[0]
        difference = self._read("sub", x, magnitude).outputs[0]
        product = self._read("mul", None, difference)
        self._copy(prelu.weight, product.inputs[0], (0,))
        prelu.weight.mul_(2)
        return self._read("add", positive, product.outputs[0]).outputs[0]

    def _read(self, kind: str, *inputs: int | None) -> Operator:
        """Return the next operator, which must have these inputs (None: any tensor) and one output."""
        if self._count == len(self._graph.operators):
            raise self._foreign(f"the graph ends after {self._count} operators")
        operator = self._graph.operators[self._count]
        equal = len(inputs) == len(operator.inputs) and all(
            expected in (None, number) for expected, number in zip(inputs, operator.inputs, strict=True)
        )
        if operator.kind != kind or not equal or len(operator.outputs) != 1:
            raise self._foreign(f"operator {self._count} is {operator.kind}{list(operator.inputs)}")
        self._count += 1
        return operator

    def _copy(self, parameter: Tensor, number: int, order: tuple[int, ...]) -> None:
        """Set a parameter to a constant of the file with its axes in another order."""
        values = self._graph.tensors[number].values
        if values is None or values.dtype != "float32" or values.ndim != len(order):
            raise self._foreign(f"tensor {number} is no weight")
        values = values.transpose(order)
        if values.shape != parameter.shape:
            raise self._foreign(f"weights of shape {list(values.shape)}, not {list(parameter.shape)}")
        parameter.copy_(torch.from_numpy(values.copy()))

    def _foreign(self, reason: str) -> UserError:
        return UserError(f"{self._path}: not the MobileFaceNet of 112 px ({reason})")
