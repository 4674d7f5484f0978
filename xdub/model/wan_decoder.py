"""Decoder of Wan's VAE, latent by latent through the public modules of diffusers, for any slice of a video.

The decoder is causal in time. Its convolutions keep the last two frames of their input as the state for the next
latent. At the true depth of Wan 2.1 and 2.2 a frame depends on 38 latents before it, more than the 20 of a window of 77
frames, so a slice is exact only behind all latents before it. These run without gradients and leave only their state.

With gradients, activations are checkpointed twice. A latent is decoded again in the backward pass, so memory holds the
states between latents, and the residual blocks of that one latent are computed a third time, one after another.

`AutoencoderKLWan.decode` clamps to [-1, 1], so no gradient leaves a saturated pixel; the decoder itself does not clamp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

State: TypeAlias = tuple[Tensor | str | None, ...]
"""Last input frames of causal convolutions. Before the first latent they are None; diffusers writes the text "Rep" for
a convolution that the first latent skips."""


def decode_latents(vae: AutoencoderKLWan, z: Tensor, start: int, latents: int) -> Tensor:
    """Return the frames [B, 3, n, H, W] of ``latents`` latents of z [B, C, f, h, w] from ``start`` on, not clamped.

    The first latent of the video has one frame, every other one has four.
    """
    state: State = (None,) * _convolutions(vae)
    with torch.no_grad():
        for i in range(start):
            _, state = _decode_one(vae, i == 0, z[:, :, i : i + 1].detach(), *state)
    frames = []
    for i in range(start, min(start + latents, z.shape[2])):
        out, state = _checkpointed(partial(_decode_one, vae, i == 0), z[:, :, i : i + 1], state)
        frames.append(out)
    return _unfolded(vae, frames)


@torch.no_grad()
def decode_next(vae: AutoencoderKLWan, z: Tensor, state: object) -> tuple[Tensor, State]:
    """Return the frames [B, 3, n, H, W] of latents z that follow earlier ones, and the decoder's state after them.

    ``state`` is the result of the call for the earlier latents; None: z begins the video.
    """
    first = state is None
    current: State = (None,) * _convolutions(vae) if first else _state(state)
    frames = []
    for i in range(z.shape[2]):
        out, current = _decode_one(vae, first and i == 0, z[:, :, i : i + 1], *current)
        frames.append(out)
    return _unfolded(vae, frames), current


def _state(value: object) -> State:
    assert isinstance(value, tuple)
    return value


def _unfolded(vae: AutoencoderKLWan, frames: list[Tensor]) -> Tensor:
    """Join the decoder's outputs in time, and unfold the squares of pixels that Wan 2.2 keeps in channels."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    video = torch.cat(frames, 2)
    patch = vae.config["patch_size"]
    return video if patch is None else unpatchify(video, patch)


def checkpoint_blocks(vae: AutoencoderKLWan) -> None:
    """Let the residual blocks of the decoder compute their activations again in the backward pass."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock

    for block in vae.decoder.modules():
        if isinstance(block, WanResidualBlock) and "forward" not in vars(block):
            block.forward = partial(_run_block, block.forward)


def _convolutions(vae: AutoencoderKLWan) -> int:
    """Return the number of the decoder's causal convolutions, the size of its state."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())


def _decode_one(
    vae: AutoencoderKLWan, first: bool, latent: Tensor, *state: Tensor | str | None
) -> tuple[Tensor, State]:
    """Return the decoder's output for a latent [B, C, 1, h, w], and the state after it."""
    cache = list(state)
    out = vae.decoder(vae.post_quant_conv(latent), feat_cache=cache, feat_idx=[0], first_chunk=first)
    return out, tuple(cache)


def _run_block(
    forward: Callable[..., Tensor],
    x: Tensor,
    feat_cache: list[Tensor | str | None] | None = None,
    feat_idx: list[int] | None = None,
) -> Tensor:
    """Run a residual block; its two convolutions have the states from ``feat_idx[0]`` on, which diffusers advances."""
    if feat_cache is None or feat_idx is None:
        return forward(x)

    def run(x: Tensor, *state: Tensor | str | None) -> tuple[Tensor, State]:
        cache = list(state)
        return forward(x, feat_cache=cache, feat_idx=[0]), tuple(cache)

    mine = slice(feat_idx[0], feat_idx[0] + 2)
    out, feat_cache[mine] = _checkpointed(run, x, tuple(feat_cache[mine]))
    feat_idx[0] += 2
    return out


def _checkpointed(run: Callable[..., tuple[Tensor, State]], x: Tensor, state: State) -> tuple[Tensor, State]:
    """Return ``run(x, *state)``; with gradients, keep nothing of it but its arguments."""
    if not torch.is_grad_enabled():
        return run(x, *state)
    # Nothing in the decoder is random, so no state of a random generator has to be kept.
    return checkpoint(run, x, *state, use_reentrant=False, preserve_rng_state=False)
