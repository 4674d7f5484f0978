"""A small SyncNet that measures whether a mouth matches the sound, from five frames and fourteen audio rows.

The shipped network replaces the lip-sync expert of Eq. 12 in the tiny recipe. Frame n of a video has the 50 Hz audio
rows 2n and 2n + 1; the audio slice of a training window begins ``AUDIO_MARGIN`` rows before frame 0 (paper B.2).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.config import PerceptionConfig, network_path
from xdub.config.shipped import shipped_weights
from xdub.errors import UserError
from xdub.geometry import AUDIO_MARGIN

FRAMES = 5
"""Frames of one visual window."""
ROWS = 14
"""Rows of one audio window: the ten rows of the window's frames and two on each side."""
PACKAGED = "syncnet.safetensors"
"""File of the shipped network."""


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig:
    """Sizes of the network; ``mouth_box`` is (left, top, right, bottom) in units of the face crop's side."""

    audio_dim: int = 80
    patch: int = 32
    width: int = 24
    embed_dim: int = 64
    mouth_box: tuple[float, float, float, float] = (0.26, 0.44, 0.74, 0.92)


class SyncNet(nn.Module):
    """Network that embeds mouth and sound, one unit vector per visual window; the cosine measures the match."""

    name = "tiny-syncnet"

    def __init__(self, cfg: SyncNetConfig = SyncNetConfig()) -> None:
        super().__init__()
        self.cfg = cfg
        width, hidden = cfg.width, 4 * cfg.width
        side = cfg.patch // 8
        # Each frame is embedded alone, so that overlapping windows share the work.
        self.frame_net = nn.Sequential(
            *_conv_block(3, width), *_conv_block(width, 2 * width), *_conv_block(2 * width, 2 * width),
            nn.Flatten(), nn.Linear(2 * width * side * side, hidden), nn.GELU(),
        )  # fmt: skip
        self.window_net = nn.Sequential(
            nn.Conv1d(hidden, hidden, FRAMES), nn.GELU(), nn.Conv1d(hidden, cfg.embed_dim, 1)
        )
        # The receptive field is 5, then 8, then 14 rows; one step is two rows, which is one frame.
        self.audio_net = nn.Sequential(
            nn.Conv1d(cfg.audio_dim, hidden, 5), nn.GELU(), nn.Conv1d(hidden, hidden, 4, stride=2), nn.GELU(),
            nn.Conv1d(hidden, hidden, 4), nn.GELU(), nn.Conv1d(hidden, cfg.embed_dim, 1),
        )  # fmt: skip
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def mouth(self, frames: Tensor) -> Tensor:
        """Cut the mouth box of face crops [N, 3, H, W], resized to [N, 3, patch, patch]."""
        height, width = frames.shape[-2:]
        left, top, right, bottom = self.cfg.mouth_box
        box = frames[
            ..., round(top * height) : round(bottom * height), round(left * width) : round(right * width)
        ]
        size = (self.cfg.patch, self.cfg.patch)
        return F.interpolate(box, size, mode="bilinear", antialias=True, align_corners=False)

    def embed_patches(self, patches: Tensor) -> Tensor:
        """Embed mouth patches [B, F, 3, p, p] in [-1, 1] as [B, F - 4, E]; entry n is of the frames n ... n + 4."""
        batch = patches.shape[0]
        # Skin tone and light of the whole window carry no information about the match.
        level = patches.mean((1, 3, 4), keepdim=True)
        frames = self.frame_net(rearrange(patches - level, "b f c h w -> (b f) c h w"))
        windows = self.window_net(rearrange(frames, "(b f) d -> b d f", b=batch))
        return F.normalize(rearrange(windows, "b e n -> b n e"), dim=-1)

    def embed_video(self, frames: Tensor) -> Tensor:
        """Embed face crops [B, 3, F, H, W] in [-1, 1], F >= 5, as [B, F - 4, E]."""
        batch = frames.shape[0]
        patches = self.mouth(rearrange(frames, "b c f h w -> (b f) c h w"))
        return self.embed_patches(rearrange(patches, "(b f) c h w -> b f c h w", b=batch))

    def embed_audio(self, audio: Tensor, num_frames: int, start: int = AUDIO_MARGIN) -> Tensor:
        """Embed audio rows [B, T, d], whose row ``start`` is the first of frame 0, as [B, num_frames - 4, E].

        Rows beyond the slice's ends are zeros, like the padding of a clip.
        """
        before = (ROWS - 2 * FRAMES) // 2
        low, high = start - before, start + 2 * num_frames + before
        audio = F.pad(audio, (0, 0, max(0, -low), max(0, high - audio.shape[1])))
        rows = audio[:, max(0, low) : max(0, low) + high - low]
        return F.normalize(
            rearrange(self.audio_net(rearrange(rows, "b t d -> b d t")), "b e n -> b n e"), dim=-1
        )

    def cosine(self, frames: Tensor, audio: Tensor, start: int = AUDIO_MARGIN) -> Tensor:
        """Compute the cosine of picture and sound for every window, [B, F - 4]; arguments as in ``sync_loss``."""
        _check(frames, audio, self.cfg)
        return (self.embed_video(frames) * self.embed_audio(audio, frames.shape[2], start)).sum(-1)

    def logits(self, cosine: Tensor) -> Tensor:
        """Compute the log-odds that picture and sound match."""
        return self.scale * cosine + self.bias

    def sync_loss(self, frames: Tensor, audio: Tensor, start: int = AUDIO_MARGIN) -> Tensor:
        """Compute the BCE of every window's match against 1, [B, F - 4], low where the mouth matches the sound.

        The logit of a match is scale * cosine + bias. This is Eq. 12 with the usual sign.

        Args:
            frames: ``[B, 3, F, H, W]`` face crops in [-1, 1], F >= 5; gradients reach the pixels.
            audio: ``[B, T, d]`` rows at 50 Hz.
            start: index of the first row of frame 0 in ``audio``.

        Raises:
            ValueError: an argument has a wrong shape; the message names it.
        """
        return F.softplus(-self.logits(self.cosine(frames, audio, start)))

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write one safetensors file with the configuration in its header; float16 halves its size without a loss."""
        from safetensors.torch import save_file

        state = {
            name: value.detach().cpu().to(dtype).contiguous() for name, value in self.state_dict().items()
        }
        save_file(state, path, metadata={"network": self.name, "config": json.dumps(asdict(self.cfg))})

    @classmethod
    def load(cls, path: str | Path) -> SyncNet:
        """Load a file of ``save``, frozen, in eval mode. Raise UserError if it is missing or of another network."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise UserError(f"{path}: no such SyncNet file; train one with `python -m xdub.fit.syncnet`")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("network") != cls.name:
                    held = metadata.get("network", "no named network")
                    raise UserError(f"{path} holds {held}, not {cls.name}")
                state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise UserError(
                f"{path}: not a readable safetensors file ({error}); copy or train it again"
            ) from error
        config = json.loads(metadata["config"])
        net = cls(SyncNetConfig(**config | {"mouth_box": tuple(config["mouth_box"])}))
        net.load_state_dict(state)
        return net.eval().requires_grad_(False)


def load_sync(cfg: PerceptionConfig) -> SyncNet:
    """Load the network that a recipe's ``perception`` section selects for the role ``sync``.

    ``tiny`` is the shipped network, for log-mel rows of rendered speakers. ``syncnet`` is a file of ``SyncNet.save`` of
    any size, trained on a user's data and audio features.
    """
    if cfg.sync == "tiny":
        return SyncNet.load(shipped_weights(PACKAGED))
    if cfg.sync != "syncnet":
        raise UserError(f"perception.sync={cfg.sync!r}: use 'tiny' or 'syncnet'")
    return SyncNet.load(str(network_path(cfg, "sync")))


def _conv_block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    """Return layers that halve the picture."""
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)
    return conv, nn.GroupNorm(4, channels_out), nn.GELU()


def _check(frames: Tensor, audio: Tensor, cfg: SyncNetConfig) -> None:
    """Raise ValueError for arguments of a wrong shape."""
    if frames.dim() != 5 or frames.shape[1] != 3 or frames.shape[2] < FRAMES:
        raise ValueError(f"frames must be [B, 3, F >= {FRAMES}, H, W], got {tuple(frames.shape)}")
    if audio.dim() != 3 or audio.shape[0] != frames.shape[0] or audio.shape[2] != cfg.audio_dim:
        expected = f"[{frames.shape[0]}, T, {cfg.audio_dim}]"
        raise ValueError(f"audio must be {expected}, got {tuple(audio.shape)}")
