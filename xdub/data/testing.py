"""Synthetic clips and small networks for tests of code that reads clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from xdub.data.clip import Clip, clip_id_of
from xdub.geometry import SAMPLES_PER_FRAME, CodecGeometry


def make_clip(seed: int, *, num_frames: int = 13, size: int = 32, pair: bool = False, **fields: Any) -> Clip:
    """Build a clip of moving waves from a seed; ``fields`` replace fields of the clip."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(num_frames), np.arange(size), np.arange(size), indexing="ij")
    phase = rng.uniform(0, 6, 3)
    frames = np.stack([np.sin(x / 6 + p + t / 5) * np.cos(y / 7 + p) for p in phase], -1)
    frames = np.rint(127.5 + 100 * frames).astype(np.uint8)
    box = (t >= 0) & (y > size // 2) & (x > size // 4) & (x < 3 * size // 4)
    source = f"test:{seed}"
    values: dict[str, Any] = {
        "clip_id": clip_id_of(source, frames),
        "source": source,
        "speaker": f"speaker{seed % 3}",
        "frames": frames,
        "audio": rng.uniform(-1, 1, num_frames * SAMPLES_PER_FRAME).astype(np.float32),
        "landmarks": rng.uniform(0, size, (num_frames, 68, 2)).astype(np.float32),
        "face_mask": box,
        "lip_mask": box & (y > 3 * size // 4),
        "occluder_mask": box & (x < size // 3 + t),
        "opening": rng.uniform(0, 1, num_frames).astype(np.float32),
    }
    if pair:
        values |= {"reference": frames[:, :, ::-1].copy(), "scores": {"identity": 0.9, "mouth_distance": 1.5}}
        values["twin_of"] = "0" * 16
    return Clip(**(values | fields))


class PatchCodec:
    """Linear codec with the geometry of real codecs (causal, time x4, space x8): a random projection of each patch."""

    geometry = CodecGeometry(channels=6, time=4, space=8)
    machine_independent = True

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        channels = self.geometry.channels
        self.first = torch.randn(3 * 64, channels, generator=generator) / 14
        self.rest = torch.randn(3 * 4 * 64, channels, generator=generator) / 28

    def encode(self, video: Tensor) -> Tensor:
        """Encode [B,3,F,H,W] as [B,6,f,h,w]."""
        head = rearrange(video[:, :, :1], "b c t (h p) (w q) -> b t h w (c p q)", p=8, q=8) @ self.first
        tail = (
            rearrange(video[:, :, 1:], "b c (t s) (h p) (w q) -> b t h w (c s p q)", s=4, p=8, q=8)
            @ self.rest
        )
        return rearrange(torch.cat([head, tail], 1), "b t h w c -> b c t h w")


class FrameIndexAudio:
    """An encoder whose row n is (n, mean of its samples), which shows where a window was cut."""

    dim = 2
    machine_independent = True

    def encode(self, wav: np.ndarray) -> Tensor:
        """Encode [N] at 16 kHz as rows [N / 320, 2]."""
        rows = torch.from_numpy(wav).view(-1, SAMPLES_PER_FRAME // 2)
        return torch.stack([torch.arange(len(rows)).float(), rows.mean(1)], 1)
