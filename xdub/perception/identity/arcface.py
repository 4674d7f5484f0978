"""ArcFace's residual network (Deng et al. 2019) for a user's checkpoint: 512-d, 112 px.

The loader reads the ``backbone.pth`` layout of the public ArcFace training code at any depth (r18 to r200). The public
weights are for non-commercial research only, so they are not downloaded.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from xdub.errors import UserError, error_reason
from xdub.perception.identity.base import FivePointIdentity
from xdub.perception.network_files import load_weights, read_state_dict

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages of the public networks."""
EMBEDDING = 512
"""Length of their embedding."""


class ArcFaceBlock(nn.Module):
    """Residual block: normalisation, two convolutions, sum with the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            shrink = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shrink, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))


class ArcFaceIdentity(FivePointIdentity):
    """512-d embedding; ``depths`` are the blocks of the four stages, (3, 4, 14, 3) for r50, (3, 13, 30, 3) for r100.

    Widths and length of the embedding are those of the public networks unless a file's shapes differ.
    """

    name = "arcface"

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 4, 14, 3),
        *,
        widths: tuple[int, ...] = WIDTHS,
        embedding: int = EMBEDDING,
    ) -> None:
        super().__init__()
        inputs = widths[0]
        self.conv1 = nn.Conv2d(3, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU(inputs)
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks = [
                ArcFaceBlock(inputs, width, 2),
                *(ArcFaceBlock(width, width, 1) for _ in range(depth - 1)),
            ]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inputs = width
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * 7 * 7, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def embed_chips(self, chips: Tensor) -> Tensor:
        """Map aligned faces [N, 3, 112, 112] in [0, 1] to [N, 512]."""
        x = self.prelu(self.bn1(self.conv1(chips * 2 - 1)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))

    @classmethod
    def load(cls, path: Path) -> ArcFaceIdentity:
        """Load a state dict of safetensors or torch.

        Raises:
            UserError: the file is missing, unreadable, or has another network's weights.
        """
        if not path.is_file():
            raise UserError(f"perception.identity_path={path}: no such file")
        state = read_state_dict(path, "an ArcFace backbone")
        blocks = [
            {key.split(".")[1] for key in state if key.startswith(f"layer{number}.")}
            for number in range(1, 5)
        ]
        if not all(blocks):
            raise UserError(f"{path}: not an ArcFace backbone (no layer1 to layer4)")
        try:
            network = cls(
                tuple(len(stage) for stage in blocks),
                widths=tuple(state[f"layer{number}.0.conv2.weight"].shape[0] for number in range(1, 5)),
                embedding=state["fc.weight"].shape[0],
            )
        except KeyError as error:
            raise UserError(f"{path}: not an ArcFace backbone (no {error.args[0]})") from error
        except (IndexError, RuntimeError) as error:
            raise UserError(f"{path}: not an ArcFace backbone ({error_reason(error)})") from error
        load_weights(network, state, path, "an ArcFace backbone")
        return network
