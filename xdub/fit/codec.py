"""Fit the embedded linear codec: ``python -m xdub.fit.codec --data DS --out codec.safetensors``.

Patches of lips count more than others, so that the few channels describe what dubbing needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from xdub.config.network_sections import CODEC_FACTORS
from xdub.files.atomic import check_output
from xdub.model.codec import LinearCodec


def fit_linear_codec(
    videos: Iterable[tuple[np.ndarray, np.ndarray]], channels: int = 48, mouth_weight: float = 4.0
) -> LinearCodec:
    """Fit the principal components of all patches of videos: (frames [F, H, W, 3] uint8, lip mask [F, H, W] bool).

    A patch with lips counts ``1 + mouth_weight`` times.
    """
    time, space = CODEC_FACTORS["linear"]
    sizes = dict(p=space, q=space)
    patch = 3 * space**2
    moments = {"first": _Moments(patch), "rest": _Moments(time * patch)}
    colour, pixels = torch.zeros(3, dtype=torch.float64), 0
    items = []
    for frames, lips in videos:
        video = torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float() / 127.5 - 1  # [3, F, H, W]
        colour += video.double().mean((1, 2, 3))
        pixels += 1
        items.append((video, torch.from_numpy(lips.copy())))
    mean = (colour / pixels).float()
    for video, lips in items:
        usable = (video.shape[1] // time) * time
        centred = video[:, :usable] - mean[:, None, None, None]
        single = rearrange(centred[:, ::time], "c t (h p) (w q) -> (t h w) (c p q)", **sizes)
        groups = rearrange(centred, "c (t s) (h p) (w q) -> (t h w) (c s p q)", s=time, **sizes)
        in_patches = rearrange(lips[:usable].float(), "(t s) (h p) (w q) -> (t h w) (s p q)", s=time, **sizes)
        lip = in_patches.mean(1)
        weight = 1 + mouth_weight * (lip > 0.2).double()
        moments["first"].add(single, weight)
        moments["rest"].add(groups, weight)
    first, std_first = moments["first"].components(channels)
    rest, std_rest = moments["rest"].components(channels)
    return LinearCodec(first, rest, std_first, std_rest, mean)


class _Moments:
    """Weighted second moments, accumulated in float64."""

    def __init__(self, size: int) -> None:
        self.sum = torch.zeros(size, size, dtype=torch.float64)
        self.weight = 0.0

    def add(self, x: torch.Tensor, weight: torch.Tensor) -> None:
        x = x.double()
        self.sum += (x * weight[:, None]).T @ x
        self.weight += float(weight.sum())

    def components(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = torch.linalg.eigh(self.sum / self.weight)
        top = values.argsort(descending=True)[:count]
        return vectors[:, top].T.float(), values[top].clamp_min(1e-12).sqrt().float()


def main() -> None:
    """Run the command line of this module."""
    from xdub.data.shards import iter_clips

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--channels", type=int, default=48)
    args = parser.parse_args()
    check_output(args.out)
    clips = ((clip.frames, clip.lip_mask) for clip in iter_clips(args.data))
    fit_linear_codec(clips, args.channels).save(args.out)


if __name__ == "__main__":
    main()
