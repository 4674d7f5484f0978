"""Picture from a single step, through which pixel losses reach the velocity (Eq. 3, 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xdub.diffusion.flow_matching import velocity
from xdub.geometry import CodecGeometry


class DecodesSlices(Protocol):
    """The part of a codec that pixel losses need."""

    @property
    def geometry(self) -> CodecGeometry:
        """Channels, and factors of time and space."""

    def decode_slice(self, z: Tensor, start: int, latents: int) -> Tensor:
        """Return the frames [B, 3, n, H, W] of ``latents`` latents of z [B, C, f, h, w] from ``start`` on."""


@dataclass(frozen=True, kw_only=True)
class SingleStep:
    """Decoded single-step estimate of a part of every window."""

    video: Tensor
    """[B, 3, F, H, W] in about [-1, 1], not clamped; F is 13 for four latents."""
    first: Tensor
    """int64 [B], the window's frame that is frame 0 of the video."""

    def rows(self, sequence: Tensor, *, per_frame: int, margin: int = 0) -> Tensor:
        """Cut the rows [B, per_frame F + 2 margin, ...] of the video's frames out of a sequence of the whole window.

        ``sequence`` [B, T, ...] has ``per_frame`` rows a frame (features, samples of sound, landmarks), and ``margin``
        further rows before the window's first frame and after its last one.
        """
        length = per_frame * self.video.shape[2] + 2 * margin
        begin = per_frame * self.first.to(sequence.device)[:, None]
        index = begin + torch.arange(length, device=sequence.device)
        return sequence[torch.arange(len(sequence), device=sequence.device)[:, None], index]


def single_step_latents(
    z0: Tensor, eps: Tensor, v_hat: Tensor, t: Tensor, t_thres: float, *, motion_latents: Tensor | int
) -> Tensor:
    """Return the latents inside Eq. 11: z_0 + (v - v_hat) min(t, t_thres), [B, C, f, h, w].

    The clamp bounds how far a bad guess at high noise moves the picture; the network itself always reads the real t.
    The first ``motion_latents`` ([B] or one number) latents are z_0: their t is 0, and no loss trains their velocity.
    """
    step = t.clamp_max(t_thres).to(z0.dtype)[:, None, None, None, None]
    moved = z0 + (velocity(z0, eps) - v_hat) * step
    motion = torch.as_tensor(motion_latents, device=z0.device).reshape(-1, 1)
    clean = torch.arange(z0.shape[2], device=z0.device) < motion
    # A selection, not a product with 0, because the velocity of motion latents may be any number.
    return torch.where(clean[:, None, :, None, None], z0, moved)


def single_step_video(
    codec: DecodesSlices,
    z0: Tensor,
    eps: Tensor,
    v_hat: Tensor,
    t: Tensor,
    *,
    starts: Tensor,
    motion_latents: Tensor | int,
    t_thres: float,
    decode_latents: int,
) -> SingleStep:
    """Decode ``decode_latents`` latents of every sample from latent ``starts`` [B] on (Eq. 11), four being 13 frames.

    A causal codec decodes the latents before the slice, too, but no gradient reaches them.
    """
    z = single_step_latents(z0, eps, v_hat, t, t_thres, motion_latents=motion_latents)
    video = decode_slices(codec, z, starts, decode_latents)
    return SingleStep(video=video, first=starts * codec.geometry.time)


def decode_slices(codec: DecodesSlices, z: Tensor, starts: Tensor, latents: int) -> Tensor:
    """Decode ``latents`` latents of every sample of z [B, C, f, h, w] from latent ``starts`` [B] on.

    The result [B, 3, F, H, W] has F = 1 + time (latents - 1) frames and begins with frame ``time * start`` of the
    window. A slice after the first latent yields ``time`` frames a latent, of which the last F are used, so the last
    frame of the window ends the last slice. Samples are decoded one at a time, which bounds the memory.
    """
    count = codec.geometry.frames(min(latents, z.shape[2]))
    positions: Sequence[int] = starts.tolist()
    slices = [
        codec.decode_slice(z[i : i + 1], start, latents)[:, :, -count:] for i, start in enumerate(positions)
    ]
    return torch.cat(slices)
