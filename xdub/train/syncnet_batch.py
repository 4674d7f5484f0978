"""Inputs of SyncNets: lower faces and sound of training samples, and whole videos whose accuracy is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdub.config import SyncNetConfig
from xdub.data.batch import RawBatch, SyncBatch
from xdub.data.latents import to_video
from xdub.data.sound import window_samples
from xdub.model.codec import Codec
from xdub.perception.syncnet.accuracy import AccuracyMeter, SyncAccuracy
from xdub.perception.syncnet.base import SyncExpert
from xdub.perception.syncnet.face_box import resample
from xdub.perception.syncnet.own import LOWER_FACE
from xdub.precision import one_thread
from xdub.seeding import torch_rng

LIGHT = 0.15
"""Largest change of a colour channel's gain in training."""


@torch.no_grad()
def encode_sync_batch(
    raw: RawBatch, *, codec: Codec, config: SyncNetConfig, seed: int, device: torch.device
) -> SyncBatch:
    """Move a stream's batch to ``device`` and cut its lower faces, varied by (seed, epoch, sample id) alone.

    A sample is mirrored or not, its box is shifted and scaled, its colours change, and with probability
    ``codec_share`` it passes through the codec.
    """
    patches = []
    with one_thread():
        for i, (epoch, sample_id) in enumerate(zip(raw["epochs"].tolist(), raw["sample_id"], strict=True)):
            draws = torch.rand(8, generator=torch_rng(seed, epoch, sample_id, "syncnet")).to(device)
            video = to_video(torch.from_numpy(raw["frames"][i]).to(device))
            if draws[0] < config.codec_share:
                video = through_codec(codec, video)
            landmarks = torch.from_numpy(raw["landmarks"][i : i + 1]).to(device)
            boxes = _shaken(LOWER_FACE.boxes(landmarks, *video.shape[-2:]), config.jitter, draws[1:4])
            cut = resample(video[0].transpose(0, 1), boxes[0], config.size)
            if draws[4] < 0.5:
                cut = cut.flip(-1)
            gain = 1 + LIGHT * (2 * draws[5:8] - 1)
            patches.append(cut * gain[:, None, None])
    return {
        "patches": torch.stack(patches),
        "sound": torch.from_numpy(raw["sound"]).to(device),
        "sample_id": raw["sample_id"],
        "epochs": torch.from_numpy(raw["epochs"]),
        "bad": raw["bad"],
    }


def video_batches(
    samples: Sequence[dict[str, Any]], size: int, device: torch.device, frames: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield videos [B, 3, F, H, W], their sound [B, 640 (F + 50)] and landmarks [B, F, 68, 2] for `AccuracyMeter.add`.

    Args:
        samples: fields of `xdub.data.windows.cut_window`; ``size`` of them are yielded together.
        frames: F, the first frames of every sample; None: all.
    """
    for begin in range(0, len(samples), size):
        part = samples[begin : begin + size]
        videos = torch.cat(
            [to_video(torch.from_numpy(sample["frames"][:frames]).to(device)) for sample in part]
        )
        sound = np.stack([sample["sound"][: window_samples(videos.shape[2])] for sample in part])
        landmarks = np.stack([sample["landmarks"][:frames] for sample in part])
        yield videos, torch.from_numpy(sound).to(device), torch.from_numpy(landmarks).to(device)


@torch.no_grad()
def accuracy_through_codec(
    network: SyncExpert,
    samples: Sequence[dict[str, Any]],
    codec: Codec,
    size: int,
    device: torch.device,
    frames: int | None = None,
) -> SyncAccuracy:
    """Measure a network on whole videos that the codec has encoded and decoded; see `video_batches`."""
    meter = AccuracyMeter(network)
    for videos, sound, landmarks in video_batches(samples, size, device, frames):
        meter.add(through_codec(codec, videos), sound, landmarks)
    return meter.result()


def through_codec(codec: Codec, video: Tensor) -> Tensor:
    """Encode and decode videos [B, 3, F, H, W] one at a time, clamped to [-1, 1], as the lip phase reads them."""
    return torch.cat([codec.decode(codec.encode(one)).clamp(-1, 1) for one in video.split(1)])


def _shaken(boxes: Tensor, jitter: float, draws: Tensor) -> Tensor:
    """Shift and scale boxes [..., 4] by at most ``jitter`` of their side; the draws [3] are in [0, 1]."""
    shift_x, shift_y, zoom = jitter * (2 * draws - 1)
    side = boxes[..., 2:3] - boxes[..., 0:1]
    change = torch.stack([shift_x - zoom / 2, shift_y - zoom / 2, shift_x + zoom / 2, shift_y + zoom / 2])
    return boxes + side * change
