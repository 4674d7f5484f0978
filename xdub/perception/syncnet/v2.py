"""SyncNet v2 of Chung and Zisserman (2016): five frames of a 224 px face against twenty MFCC rows.

The layout is that of the published file `syncnet_v2.model`, a state dict of four towers. The layers' widths are read
from the file's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.errors import UserError
from xdub.geometry import FPS, SAMPLE_RATE, SOUND_MARGIN
from xdub.perception.syncnet.base import SyncExpert, num_frames
from xdub.perception.syncnet.face_box import FaceBox, resample
from xdub.perception.syncnet.sound import MFCC_HOP, mfcc

SIDE = 224
"""Side of the face in px."""
STEPS = 20
"""MFCC rows of a window of five frames."""
STEPS_PER_FRAME = SAMPLE_RATE // FPS // MFCC_HOP
"""MFCC rows of one frame: 4."""
TOWERS = ("netcnnaud", "netfcaud", "netcnnlip", "netfclip")
"""Prefixes of the names in the file."""
FACE = FaceBox(drop=1.01, side=3.9, fallback=(0.0, 0.0, 1.0, 1.0))
"""The published crop: 1.4 sides of a detected face, which reaches from the forehead to the chin, and lower by 0.2."""


@dataclass(frozen=True, kw_only=True)
class SyncNetV2Widths:
    """Output channels of the layers, with the published sizes."""

    audio: tuple[int, ...] = (64, 192, 384, 256, 256, 512)
    lip: tuple[int, ...] = (96, 256, 256, 256, 256, 512)
    hidden: int = 512
    """Width of the first fully connected layer of both towers."""
    embed: int = 1024


class SyncNetV2(SyncExpert):
    """Two towers of convolutions with batch normalisation; their distance measures the match."""

    name = "syncnet-v2"
    frames = 5

    def __init__(self, widths: SyncNetV2Widths = SyncNetV2Widths()) -> None:
        super().__init__()
        a, v = widths.audio, widths.lip
        # Pooling layers have no weights, but count in the names.
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, a[0], 3, padding=1), nn.MaxPool2d(1),
            *_conv2d(a[0], a[1], 3, padding=1), nn.MaxPool2d(3, stride=(1, 2)),
            *_conv2d(a[1], a[2], 3, padding=1), *_conv2d(a[2], a[3], 3, padding=1),
            *_conv2d(a[3], a[4], 3, padding=1), nn.MaxPool2d(3, stride=2),
            *_conv2d(a[4], a[5], (5, 4)),
        )  # fmt: skip
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, v[0], (5, 7, 7), stride=(1, 2, 2)), nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_conv3d(v[0], v[1], (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *_conv3d(v[1], v[2], (1, 3, 3), padding=(0, 1, 1)), *_conv3d(v[2], v[3], (1, 3, 3), padding=(0, 1, 1)),
            *_conv3d(v[3], v[4], (1, 3, 3), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_conv3d(v[4], v[5], (1, 6, 6)),
        )  # fmt: skip
        self.netfcaud = _head(a[-1], widths.hidden, widths.embed)
        self.netfclip = _head(v[-1], widths.hidden, widths.embed)

    def lip_features(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Compute the lip tower's features [B, F - 4, E] of face crops [B, 3, F, H, W] in [-1, 1]."""
        batch = frames.shape[0]
        boxes = FACE.boxes(landmarks, *frames.shape[-2:])
        faces = resample(rearrange(frames, "b c f h w -> (b f) c h w"), boxes.flatten(0, 1), SIDE)
        # The network was trained on 0 ... 255 in the order blue, green, red. One pass over all frames equals a pass
        # over each window, because only the first layer joins frames.
        pixels = (rearrange(faces, "(b f) c h w -> b c f h w", b=batch).flip(1) + 1) * 127.5
        maps = self.netcnnlip(pixels)
        features = self.netfclip(rearrange(maps, "b e w 1 1 -> (b w) e"))
        return rearrange(features, "(b w) e -> b w e", b=batch)

    def sound_features(self, sound: Tensor, around: int = 0) -> Tensor:
        """Compute the audio tower's features [B, F - 4 + 2 around, E] of sound [B, 640 (F + 50)]."""
        windows = num_frames(sound) - self.frames + 1 + 2 * around
        rows = mfcc(sound)[:, STEPS_PER_FRAME * (SOUND_MARGIN - around) :]
        # [B, windows, 13, 20]
        pieces = rows.unfold(1, STEPS, STEPS_PER_FRAME)[:, :windows]
        maps = self.netcnnaud(rearrange(pieces, "b w c t -> (b w) 1 c t"))
        return rearrange(self.netfcaud(maps.flatten(1)), "(b w) e -> b w e", b=sound.shape[0])

    def embed_video(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Embed the windows of a video as unit vectors [B, F - 4, E]; see `SyncExpert`."""
        return F.normalize(self.lip_features(frames, landmarks), dim=-1)

    def embed_sound(self, sound: Tensor, around: int = 0) -> Tensor:
        """Embed the windows' sound as unit vectors [B, F - 4 + 2 around, E]; see `SyncExpert`."""
        return F.normalize(self.sound_features(sound, around), dim=-1)

    def loss_of(self, cosine: Tensor) -> Tensor:
        """Return -log of the match, whose probability is (1 + cosine) / 2."""
        return -((1 + cosine) / 2).clamp_min(1e-4).log()


def syncnet_v2(state: Mapping[str, Tensor], path: str | Path) -> SyncNetV2:
    """Return the network of the tensors in a file, frozen, in eval mode. Raise UserError if they are of another one."""
    if {name.partition(".")[0] for name in state} != set(TOWERS):
        raise UserError(
            f"{path}: not a SyncNet: neither from `xdub train syncnet` nor with the parts of SyncNet v2 "
            f"({', '.join(TOWERS)})"
        )
    try:
        net = SyncNetV2(_widths(state))
        missing, unexpected = net.load_state_dict(dict(state), strict=False)
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{path}: a SyncNet v2 of another layout ({str(error).splitlines()[-1].strip()})"
        ) from error
    # Files from before torch 0.4 do not count batches.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UserError(
            f"{path}: a SyncNet v2 of another layout ({len(missing)} weights missing, {len(unexpected)} unknown)"
        )
    return net.eval().requires_grad_(False)


def _widths(state: Mapping[str, Tensor]) -> SyncNetV2Widths:
    """Read the layers' widths from the shapes of a state dict."""

    def channels(tower: str) -> tuple[int, ...]:
        return tuple(state[f"{tower}.{index}.weight"].shape[0] for index in (0, 4, 8, 11, 14, 18))

    hidden, embed = (state[f"netfclip.{index}.weight"].shape[0] for index in (0, 3))
    return SyncNetV2Widths(audio=channels("netcnnaud"), lip=channels("netcnnlip"), hidden=hidden, embed=embed)


def _conv2d(
    channels_in: int, channels_out: int, kernel: int | tuple[int, int], padding: int = 0
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=padding)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU()


def _conv3d(
    channels_in: int,
    channels_out: int,
    kernel: tuple[int, int, int],
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int] = (0, 0, 0),
) -> tuple[nn.Module, ...]:
    conv = nn.Conv3d(channels_in, channels_out, kernel, stride=stride, padding=padding)
    return conv, nn.BatchNorm3d(channels_out), nn.ReLU()


def _head(channels: int, hidden: int, embed: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, embed)
    )
