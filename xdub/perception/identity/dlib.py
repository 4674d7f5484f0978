"""dlib's face ResNet (29 convolutions, 128-d) in plain torch, read from dlib's own file.

In dlib a convolution with stride 1 is padded by half its size and one with stride 2 not at all, and adding two
tensors of unequal size fills the smaller one with zeros. Pixels are RGB minus a mean, over 256.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.perception.identity.base import Identity
from xdub.perception.landmarks import EYE_CORNERS, NOSE_BASE

MEAN = (122.782, 117.001, 104.298)
# Where eye corners and nose base lie in a unit face that is then bordered by a quarter on every side.
UNIT_FACE = np.array(
    [[0.1206, 0.2137], [0.3341, 0.2291], [0.6461, 0.2290], [0.8596, 0.2135], [0.4901, 0.6278]]
)
# (channels, blocks, halved by the first one), from the input on
STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))


class ScaledConv(nn.Module):
    """Convolution followed by dlib's `affine`: a scale and a shift per channel (a frozen batch norm)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0)
        self.gamma = nn.Parameter(torch.ones(outputs, 1, 1))
        self.beta = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gamma + self.beta


class Block(nn.Module):
    """Two convolutions around a skip; ``down`` halves the picture."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = ScaledConv(inputs, outputs, 3, 2 if down else 1)
        self.second = ScaledConv(outputs, outputs, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        return F.relu(_add(y, F.avg_pool2d(x, 2) if self.down else x))


class DlibIdentity(Identity):
    """128-d embedding. Distance of the same person: below 0.6 on photos, 0.1 to 0.4 within a video."""

    name = "dlib"
    chip_size = 150
    template = (UNIT_FACE + 0.25) / 1.5 * 150
    crop_anchors = np.array([[0.239, 0.184], [0.398, 0.184], [0.602, 0.184], [0.761, 0.184], [0.5, 0.462]])

    @staticmethod
    def anchors(landmarks68: np.ndarray) -> np.ndarray:
        """Eye corners and the base of the nose: lips and jaw do not move them."""
        return landmarks68[:, [*EYE_CORNERS, NOSE_BASE]]

    def __init__(self) -> None:
        super().__init__()
        self.stem = ScaledConv(3, 32, 7, 2)
        blocks, inputs = [], 32
        for channels, count, halved in STAGES:
            for number in range(count):
                blocks.append(Block(inputs, channels, halved and number == 0))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)

    def embed_chips(self, chips: Tensor) -> Tensor:
        x = (chips * 255 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.fc(self.blocks(x).mean(dim=(2, 3)))

    @classmethod
    def load(cls, path: str | Path | None = None) -> DlibIdentity:
        """From dlib's .dat file, by default the registered one (role ``identity_dlib``)."""
        if path is None:
            from xdub.perception.registry import fetch

            path = fetch("identity_dlib")
        network = cls()
        network.read(Path(path).read_bytes(), path)
        return network

    @torch.no_grad()
    def read(self, data: bytes, path: str | Path) -> None:
        """Fill in the parameters from the bytes of a .dat file: its tensors follow each other in layer order.

        Raises:
            UserError: a tensor of the expected size is missing: another network's file.
        """
        at = 0
        for layer in self._layers():
            for parts in layer:
                count = sum(part.numel() for part in parts)
                rows, columns = (256, 128) if parts[0] is self.fc.weight else (count, 1)
                header = _tensor_header(rows, columns)
                at = data.find(header, at)
                if at < 0 or len(data) < at + len(header) + 4 * count:
                    raise UserError(
                        f"{path}: not dlib's face recognition ResNet (no tensor of {count} values)"
                    )
                at += len(header)
                values = torch.from_numpy(np.frombuffer(data, "<f4", count, at).copy())
                at += 4 * count
                if parts[0] is self.fc.weight:
                    parts[0].copy_(values.view(256, 128).T)
                    continue
                for part, some in zip(parts, values.split([p.numel() for p in parts]), strict=True):
                    part.copy_(some.view_as(part))

    def _layers(self) -> Iterator[tuple[tuple[Any, ...], ...]]:
        """Parameters as dlib stores them: filters and bias in one tensor, scale and shift in the next."""
        convs = [self.stem, *(conv for block in self.blocks for conv in (block.first, block.second))]
        for conv in convs:
            yield (conv.conv.weight, conv.conv.bias), (conv.gamma, conv.beta)
        yield ((self.fc.weight,),)


def _tensor_header(rows: int, columns: int) -> bytes:
    """dlib's serialized version (2) and sizes (samples, k, rows, columns) of a tensor."""
    return b"".join(_packed_int(n) for n in (2, rows, columns, 1, 1))


def _packed_int(value: int) -> bytes:
    """dlib's integers: how many bytes follow, then those, little-endian."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "little")


def _add(a: Tensor, b: Tensor) -> Tensor:
    """Sum of tensors [N, C, H, W] as large as the larger in every dimension, missing values being 0."""
    channels, height, width = (max(x, y) for x, y in zip(a.shape[1:], b.shape[1:], strict=True))

    def grown(x: Tensor) -> Tensor:
        return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))

    return grown(a) + grown(b)
