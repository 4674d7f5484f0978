"""The SyncNet that `xdub train syncnet` trains: sixteen frames of the lower face against their sound.

Every frame of picture and sound has a feature vector of its own. A window is the sequence of its frames' vectors, so
its cosine is the mean over frames of the agreement at the same moment, and frames with clear speech weigh more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.geometry import SOUND_MARGIN
from xdub.perception.syncnet.base import SyncExpert, halving_layers, num_frames
from xdub.perception.syncnet.face_box import FaceBox, resample
from xdub.perception.syncnet.sound import log_mel

LOWER_FACE = FaceBox(drop=1.35, side=1.9, fallback=(0.155, 0.31, 0.845, 1.0))
"""From below the eyes to below an open chin."""
HOP, WINDOW, BANDS = 160, 400, 80
"""Log-mel rows: samples from row to row (100 rows a second), samples of a row, bands."""
COARSEST = 4
"""Side of the last feature map of a frame."""


@dataclass(frozen=True, kw_only=True)
class OwnSyncNetConfig:
    """Sizes of the network, which its file records."""

    size: int = 128
    """Side of the lower face in px: 4 times a power of two."""
    frames: int = 16
    """Frames of a window. A shorter video is one window."""
    width: int = 32
    """Channels of the first layer; deeper layers have up to eight times as many."""
    embed_dim: int = 128
    """Length of one frame's vector."""


class OwnSyncNet(SyncExpert):
    """Two towers of residual convolutions: pictures one by one and then over time, and log-mel rows over time."""

    name = "xdub-syncnet"

    def __init__(self, cfg: OwnSyncNetConfig = OwnSyncNetConfig()) -> None:
        super().__init__()
        self.cfg, self.frames = cfg, cfg.frames
        stages = round(math.log2(cfg.size / COARSEST))
        channels = [cfg.width * min(8, 2**stage) for stage in range(stages)]
        hidden = channels[-1]
        picture: list[nn.Module] = [*halving_layers(3, channels[0])]
        for before, after in zip(channels, channels[1:], strict=False):
            picture += [*halving_layers(before, after), _Residual2d(after)]
        self.frame_net = nn.Sequential(
            *picture, nn.Flatten(), nn.Linear(hidden * COARSEST**2, hidden), nn.GELU()
        )
        self.video_net = nn.Sequential(
            _Residual1d(hidden), _Residual1d(hidden), nn.Conv1d(hidden, cfg.embed_dim, 1)
        )
        # Two halvings of the rate lead from 100 rows to 25 frames a second; frame n has the rows 4 n ... 4 n + 3.
        self.audio_net = nn.Sequential(
            nn.Conv1d(BANDS, hidden, 3, padding=1), nn.GELU(), _Residual1d(hidden),
            nn.Conv1d(hidden, hidden, 4, stride=2, padding=1), nn.GELU(), _Residual1d(hidden),
            nn.Conv1d(hidden, hidden, 4, stride=2, padding=1), nn.GELU(), _Residual1d(hidden),
            _Residual1d(hidden), nn.Conv1d(hidden, cfg.embed_dim, 1),
        )  # fmt: skip
        self.log_scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        """Logarithm of the factor from a cosine to log-odds."""
        self.bias = nn.Parameter(torch.tensor([-3.0]))

    def cut(self, frames: Tensor, boxes: Tensor) -> Tensor:
        """Cut boxes [B, F, 4] out of face crops [B, 3, F, H, W] as patches [B, F, 3, size, size]."""
        pictures = rearrange(frames, "b c f h w -> (b f) c h w")
        patches = resample(pictures, boxes.flatten(0, 1), self.cfg.size)
        return patches.unflatten(0, boxes.shape[:2])

    def forward(self, patches: Tensor, sound: Tensor, around: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what training compares: pictures [B, W, E], sounds [B, W + 2 around, E], and scale and bias of the
        log-odds."""
        return (
            self.embed_patches(patches),
            self.embed_sound(sound, around),
            self.log_scale.float().exp(),
            self.bias.float(),
        )

    def embed_patches(self, patches: Tensor) -> Tensor:
        """Embed patches [B, F, 3, size, size] in [-1, 1] as unit vectors [B, W, E]."""
        batch = patches.shape[0]
        # Skin tone and light of the whole video carry no information about the match.
        patches = (patches - patches.mean((1, 3, 4), keepdim=True)).to(self.log_scale.dtype)
        features = self.frame_net(patches.flatten(0, 1)).unflatten(0, (batch, -1))
        return self._windows(self.video_net(features.transpose(1, 2)), patches.shape[1])

    def embed_video(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Embed the windows of a video as unit vectors [B, W, E]; see `SyncExpert`."""
        boxes = LOWER_FACE.boxes(landmarks, *frames.shape[-2:])
        return self.embed_patches(self.cut(frames, boxes))

    def embed_sound(self, sound: Tensor, around: int = 0) -> Tensor:
        """Embed the windows' sound as unit vectors [B, W + 2 around, E]; see `SyncExpert`."""
        rows = log_mel(sound, BANDS, hop=HOP, window=WINDOW).to(self.log_scale.dtype)
        features = self.audio_net(rows.transpose(1, 2))
        beyond = SOUND_MARGIN - around
        return self._windows(features[..., beyond : features.shape[-1] - beyond], num_frames(sound))

    def loss_of(self, cosine: Tensor) -> Tensor:
        """Return the BCE against 1 of a match with log-odds scale * cosine + bias."""
        return F.softplus(-(self.log_scale.exp() * cosine + self.bias))

    def _windows(self, features: Tensor, count: int) -> Tensor:
        """Join the vectors [B, E, T] of consecutive frames to unit vectors [B, windows, frames E].

        ``count`` is the length of the video, which may be shorter than a window.
        """
        windows = features.float().unfold(2, min(self.frames, count), 1)
        return F.normalize(rearrange(windows, "b e w f -> b w (f e)"), dim=-1)


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of [B, C, T], so that it does not depend on the length T."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise every moment by itself."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class _Residual1d(nn.Module):
    """Two convolutions over five moments, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _ChannelNorm(channels), nn.Conv1d(channels, channels, 3, padding=1), nn.GELU(),
            nn.Conv1d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to [B, C, T]."""
        return x + self.net(x)


class _Residual2d(nn.Module):
    """A convolution over 3 x 3 px, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.GroupNorm(4, channels), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, H, W]."""
        return x + self.net(x)
