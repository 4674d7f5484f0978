"""The SyncNet in the package: five frames of a 32 px mouth against fourteen log-mel rows, for rendered speakers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.geometry import ROWS_PER_FRAME, SOUND_MARGIN
from xdub.perception.syncnet.base import SyncExpert, halving_layers, num_frames
from xdub.perception.syncnet.face_box import FaceBox, resample
from xdub.perception.syncnet.sound import log_mel

ROWS = 14
"""Rows of one audio window: the ten rows of the window's frames and two on each side."""
MOUTH_DROP, MOUTH_SIDE = 1.32, 1.19
"""Position and size of the mouth's box (`FaceBox`), equal to the fixed box in a crop of recipe `tiny`."""


@dataclass(frozen=True, kw_only=True)
class TinySyncNetConfig:
    """Sizes of the network; ``mouth_box`` is (left, top, right, bottom) in units of the face crop's side."""

    audio_dim: int = 80
    """Bands of the log-mel rows."""
    patch: int = 32
    width: int = 24
    embed_dim: int = 64
    mouth_box: tuple[float, float, float, float] = (0.26, 0.44, 0.74, 0.92)


class TinySyncNet(SyncExpert):
    """Network that embeds a mouth of five frames, and log-mel rows at 50 Hz."""

    name = "tiny-syncnet"
    frames = 5

    def __init__(self, cfg: TinySyncNetConfig = TinySyncNetConfig()) -> None:
        super().__init__()
        self.cfg = cfg
        self.box = FaceBox(drop=MOUTH_DROP, side=MOUTH_SIDE, fallback=cfg.mouth_box)
        width, hidden = cfg.width, 4 * cfg.width
        side = cfg.patch // 8
        # Each frame is embedded alone, so that overlapping windows share the work.
        self.frame_net = nn.Sequential(
            *halving_layers(3, width), *halving_layers(width, 2 * width), *halving_layers(2 * width, 2 * width),
            nn.Flatten(), nn.Linear(2 * width * side * side, hidden), nn.GELU(),
        )  # fmt: skip
        self.window_net = nn.Sequential(
            nn.Conv1d(hidden, hidden, self.frames), nn.GELU(), nn.Conv1d(hidden, cfg.embed_dim, 1)
        )
        # The receptive field is 5, then 8, then 14 rows; one step is two rows, which is one frame.
        self.audio_net = nn.Sequential(
            nn.Conv1d(cfg.audio_dim, hidden, 5), nn.GELU(), nn.Conv1d(hidden, hidden, 4, stride=2), nn.GELU(),
            nn.Conv1d(hidden, hidden, 4), nn.GELU(), nn.Conv1d(hidden, cfg.embed_dim, 1),
        )  # fmt: skip
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def embed_video(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Embed face crops [B, 3, F, H, W], F >= 5, as [B, F - 4, E]; entry n is of the frames n ... n + 4."""
        batch = frames.shape[0]
        boxes = self.box.boxes(landmarks, *frames.shape[-2:])
        patches = resample(rearrange(frames, "b c f h w -> (b f) c h w"), boxes.flatten(0, 1), self.cfg.patch)
        patches = rearrange(patches, "(b f) c h w -> b f c h w", b=batch)
        # Skin tone and light of the whole window carry no information about the match.
        level = patches.mean((1, 3, 4), keepdim=True)
        features = self.frame_net(rearrange(patches - level, "b f c h w -> (b f) c h w"))
        windows = self.window_net(rearrange(features, "(b f) d -> b d f", b=batch))
        return F.normalize(rearrange(windows, "b e n -> b n e"), dim=-1)

    def embed_sound(self, sound: Tensor, around: int = 0) -> Tensor:
        """Embed the windows' sound as [B, F - 4 + 2 around, E]; see `SyncExpert`."""
        return self.embed_rows(log_mel(sound, self.cfg.audio_dim), num_frames(sound), around)

    def embed_rows(self, rows: Tensor, count: int, around: int = 0) -> Tensor:
        """Embed log-mel rows [B, 2 (F + 50), bands] of F = count frames and a second on either side."""
        before = ROWS_PER_FRAME * (SOUND_MARGIN - around) - (ROWS - ROWS_PER_FRAME * self.frames) // 2
        heard = rows[:, before : rows.shape[1] - before]
        assert heard.shape[1] == ROWS_PER_FRAME * (count + 2 * around) + ROWS - ROWS_PER_FRAME * self.frames
        return F.normalize(
            rearrange(self.audio_net(rearrange(heard, "b t d -> b d t")), "b e n -> b n e"), dim=-1
        )

    def loss_of(self, cosine: Tensor) -> Tensor:
        """Return the BCE against 1 of a match with log-odds scale * cosine + bias."""
        return F.softplus(-(self.scale * cosine + self.bias))
