"""dlib's face ResNet (29 convolutions, 128-d) in torch, read from dlib's own file.

In dlib a convolution with stride 1 is padded by half its size, and a convolution with stride 2 is not padded. A sum of
two tensors of unequal size fills the smaller one with zeros. Pixels are RGB minus a mean, divided by 256.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.perception.identity.base import Identity
from xdub.perception.landmarks import EYE_CORNERS, NOSE_BASE

MEAN = (122.782, 117.001, 104.298)
"""Mean of red, green and blue, subtracted from the pixels."""
UNIT_FACE = np.array(
    [[0.1206, 0.2137], [0.3341, 0.2291], [0.6461, 0.2290], [0.8596, 0.2135], [0.4901, 0.6278]]
)
"""Position of eye corners and nose base in a unit face, to which the chip adds a border of a quarter on every side."""
STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""(channels, number of blocks, whether the first block halves the picture) of each stage."""


class ScaledConv(nn.Module):
    """Convolution followed by dlib's `affine`: a scale and a shift per channel (a frozen batch norm)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0)
        self.gamma = nn.Parameter(torch.ones(outputs, 1, 1))
        self.beta = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W']."""
        return self.conv(x) * self.gamma + self.beta


class DlibBlock(nn.Module):
    """Residual block of two convolutions; ``down`` halves the picture."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = ScaledConv(inputs, outputs, 3, 2 if down else 1)
        self.second = ScaledConv(outputs, outputs, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W']."""
        y = self.second(F.relu(self.first(x)))
        return F.relu(_add(y, F.avg_pool2d(x, 2) if self.down else x))


class DlibIdentity(Identity):
    """128-d embedding. The distance of the same person is below 0.6 on photos, 0.1 to 0.4 within a video."""

    name = "dlib"
    mean: Tensor
    chip_size = 150
    template = (UNIT_FACE + 0.25) / 1.5 * 150
    crop_anchors = np.array([[0.239, 0.184], [0.398, 0.184], [0.602, 0.184], [0.761, 0.184], [0.5, 0.462]])

    @staticmethod
    def anchors(landmarks68: np.ndarray) -> np.ndarray:
        """Return eye corners and base of the nose, [N, 5, 2]; lips and jaw do not move these points."""
        return landmarks68[:, [*EYE_CORNERS, NOSE_BASE]]

    def __init__(self) -> None:
        super().__init__()
        self.stem = ScaledConv(3, 32, 7, 2)
        blocks, inputs = [], 32
        for channels, count, halved in STAGES:
            for number in range(count):
                blocks.append(DlibBlock(inputs, channels, halved and number == 0))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)

    def embed_chips(self, chips: Tensor) -> Tensor:
        """Map aligned faces [N, 3, 150, 150] in [0, 1] to [N, 128]."""
        x = (chips * 255 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.fc(self.blocks(x).mean(dim=(2, 3)))

    @classmethod
    def load(cls, path: str | Path | None = None) -> DlibIdentity:
        """Load dlib's .dat file, by default the registered one (role ``identity_dlib``)."""
        if path is None:
            from xdub.perception.registry import fetch

            path = fetch("identity_dlib")
        network = cls()
        network.read(Path(path).read_bytes(), path)
        return network

    @torch.no_grad()
    def read(self, data: bytes, path: str | Path) -> None:
        """Set the parameters from the bytes of a .dat file, whose tensors are in layer order.

        Raises:
            UserError: a tensor of the expected size is missing, so the file is of another network.
        """
        offset = 0
        for layer in self._layers():
            for parts in layer:
                count = sum(part.numel() for part in parts)
                rows, columns = (256, 128) if parts[0] is self.fc.weight else (count, 1)
                header = _tensor_header(rows, columns)
                offset = data.find(header, offset)
                if offset < 0 or len(data) < offset + len(header) + 4 * count:
                    raise UserError(
                        f"{path}: not dlib's face recognition ResNet (no tensor of {count} values)"
                    )
                offset += len(header)
                values = torch.from_numpy(np.frombuffer(data, "<f4", count, offset).copy())
                offset += 4 * count
                if parts[0] is self.fc.weight:
                    parts[0].copy_(values.view(256, 128).T)
                    continue
                sizes = [part.numel() for part in parts]
                for part, numbers in zip(parts, values.split(sizes), strict=True):
                    part.copy_(numbers.view_as(part))

    def _layers(self) -> Iterator[tuple[tuple[Tensor, ...], ...]]:
        """Yield parameters as dlib stores them: filters and bias in one tensor, scale and shift in the next."""
        for layer in self.modules():
            if isinstance(layer, ScaledConv):
                assert layer.conv.bias is not None
                yield (layer.conv.weight, layer.conv.bias), (layer.gamma, layer.beta)
        yield ((self.fc.weight,),)


def _tensor_header(rows: int, columns: int) -> bytes:
    """Serialize the format version (2) and the sizes (samples, k, rows, columns) of a tensor as dlib does."""
    return b"".join(_packed_int(n) for n in (2, rows, columns, 1, 1))


def _packed_int(value: int) -> bytes:
    """Serialize an integer as dlib does: the number of bytes, then the bytes, little-endian."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "little")


def _add(a: Tensor, b: Tensor) -> Tensor:
    """Add tensors [N, C, H, W] of different sizes; the smaller one is padded with zeros."""
    channels, height, width = (max(x, y) for x, y in zip(a.shape[1:], b.shape[1:], strict=True))

    def grown(x: Tensor) -> Tensor:
        return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))

    return grown(a) + grown(b)
