"""MobileNetV3 in its minimal form: no squeeze, ReLU, 3 x 3 kernels. Names and padding are those of SMIRK's weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

Stage = tuple[tuple[float, int, int], ...]
"""Blocks of a stage: (expansion, output channels, stride)."""
SMALL: tuple[Stage, ...] = (
    ((4.5, 24, 2), (3.67, 24, 1)),
    ((4, 40, 2), (6, 40, 1), (6, 40, 1)),
    ((3, 48, 1), (3, 48, 1)),
    ((6, 96, 2), (6, 96, 1), (6, 96, 1)),
)
"""Stages between the first and the last of the small network."""
LARGE: tuple[Stage, ...] = (
    ((4, 24, 2), (3, 24, 1)),
    ((3, 40, 2), (3, 40, 1), (3, 40, 1)),
    ((6, 80, 2), (2.5, 80, 1), (2.3, 80, 1), (2.3, 80, 1)),
    ((6, 112, 1), (6, 112, 1)),
    ((6, 160, 2), (6, 160, 1), (6, 160, 1)),
)
"""The same of the large network."""
STEM = 16
"""Channels of the first convolution and the first stage."""


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(side / stride) pixels; an odd border is one wider on the right and below."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [N, C, H, W]."""
        borders: list[int] = []
        for side, kernel, stride in zip(
            input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            borders += [total // 2, total - total // 2]
        return F.conv2d(F.pad(input, borders), self.weight, self.bias, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """The first block: a convolution of each channel, then one of single pixels."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv(channels, channels, 3, stride, groups=channels, bias=False)
        self.bn1 = _norm(channels)
        self.conv_pw = SameConv(channels, out, 1, bias=False)
        self.bn2 = _norm(out)
        self.skips = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W]."""
        y = self.bn2(self.conv_pw(F.relu(self.bn1(self.conv_dw(x)))))
        return x + y if self.skips else y


class Inverted(nn.Module):
    """A block that expands the channels, convolves each of them, and projects them."""

    def __init__(self, channels: int, expansion: float, out: int, stride: int) -> None:
        super().__init__()
        inner = _divisible(channels * expansion)
        self.conv_pw = SameConv(channels, inner, 1, bias=False)
        self.bn1 = _norm(inner)
        self.conv_dw = SameConv(inner, inner, 3, stride, groups=inner, bias=False)
        self.bn2 = _norm(inner)
        self.conv_pwl = SameConv(inner, out, 1, bias=False)
        self.bn3 = _norm(out)
        self.skips = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W]."""
        y = F.relu(self.bn2(self.conv_dw(F.relu(self.bn1(self.conv_pw(x))))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.skips else y


class Pointwise(nn.Module):
    """The last block: a convolution of single pixels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = SameConv(channels, out, 1, bias=False)
        self.bn1 = _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W]."""
        return F.relu(self.bn1(self.conv(x)))


class MobileNet(nn.Module):
    """The network without its classifier; `width` is the number of output channels."""

    def __init__(self, stages: tuple[Stage, ...], first_stride: int) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, STEM, 3, 2, bias=False)
        self.bn1 = _norm(STEM)
        blocks, channels = [nn.Sequential(Separable(STEM, STEM, first_stride))], STEM
        for stage in stages:
            parts = []
            for expansion, out, stride in stage:
                parts.append(Inverted(channels, expansion, out, stride))
                channels = out
            blocks.append(nn.Sequential(*parts))
        self.width = 6 * channels
        self.blocks = nn.Sequential(*blocks, nn.Sequential(Pointwise(channels, self.width)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures [N, 3, H, W] in [0, 1] to mean features [N, width]."""
        return self.blocks(F.relu(self.bn1(self.conv_stem(pictures)))).mean(dim=(2, 3))


def small() -> MobileNet:
    """Return the small network, 576 features."""
    return MobileNet(SMALL, 2)


def large() -> MobileNet:
    """Return the large network, 960 features."""
    return MobileNet(LARGE, 1)


def _divisible(value: float, divisor: int = 8) -> int:
    """Return the multiple of ``divisor`` near a number of channels, at most 10 % below it."""
    near = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return near if near >= 0.9 * value else near + divisor
