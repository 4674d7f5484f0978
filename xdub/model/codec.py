"""Video codecs: 3D causal autoencoders with time x4, space x8 (paper B.1).

The paper names no factors. We chose those of the open Wan 2.1 VAE, which agree with the paper's 25 and 77 frames.

F = 1 + 4 k video frames become f = 1 + k latents; the first latent holds one frame, every other one four, and no
latent looks at later frames. Latents are scaled so that the network sees values of order one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from xdub.errors import UserError, loading_pretrained
from xdub.files.shipped import shipped_weights
from xdub.model.tensor_file import read_tensors

TIME_FACTOR = 4
SPACE_FACTOR = 8
PACKAGED_LINEAR_CODEC = "linear_codec_48.safetensors"


def latent_frames(num_frames: int) -> int:
    """F video frames -> f latents; F must be 4k + 1."""
    if num_frames < 1 or (num_frames - 1) % TIME_FACTOR:
        raise UserError(f"{num_frames} frames do not fit the causal codec: use 4k + 1, e.g. 25 or 77")
    return 1 + (num_frames - 1) // TIME_FACTOR


class Codec(Protocol):
    """What the rest of the code knows of a codec."""

    channels: int

    @property
    def channel_std(self) -> Tensor:
        """[C] standard deviation of each latent channel on faces."""

    def to(self, device: str | torch.device, /) -> Codec:
        """The codec on another device."""

    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1] -> z [B, C, f, h, w] float32."""

    def decode(self, z: Tensor) -> Tensor:
        """z [B, C, f, h, w] -> [B, 3, F, H, W], differentiable, not clamped."""


class LinearCodec(nn.Module):
    """Principal components of 8x8x3 (first frame) and 4x8x8x3 patches of faces: exact to decode and to differentiate.

    The embedded default. Component c is divided by the square root of its standard deviation ("half-whitened"):
    coarse channels stay stronger than fine ones, as in an image, yet fine ones are not lost in the noise.
    """

    def __init__(
        self, first: Tensor, rest: Tensor, std_first: Tensor, std_rest: Tensor, mean: Tensor
    ) -> None:
        """first [C, 192], rest [C, 768] orthonormal rows; std_* [C] of the raw components; mean [3] colour."""
        super().__init__()
        self.channels = rest.shape[0]
        for name, value in dict(
            first=first, rest=rest, std_first=std_first, std_rest=std_rest, mean=mean
        ).items():
            self.register_buffer(name, value.float().contiguous())
        # One gain for both kinds of latent keeps a channel's scale comparable; first frames hold 4x fewer pixels.
        self.register_buffer(
            "gain_first", (std_first.float().sqrt() * std_first.float()[0].sqrt()).reciprocal()
        )
        self.register_buffer("gain_rest", (std_rest.float().sqrt() * std_rest.float()[0].sqrt()).reciprocal())

    @property
    def channel_std(self) -> Tensor:
        return self.std_rest * self.gain_rest

    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1] -> [B, C, f, H/8, W/8]."""
        latent_frames(video.shape[2])
        if video.shape[3] % SPACE_FACTOR or video.shape[4] % SPACE_FACTOR:
            raise UserError(f"{video.shape[4]}x{video.shape[3]} px is not divisible by {SPACE_FACTOR}")
        centred = video.float() - self.mean[None, :, None, None, None]
        head = rearrange(centred[:, :, :1], "b c t (h p) (w q) -> b t h w (c p q)", p=8, q=8)
        tail = rearrange(centred[:, :, 1:], "b c (t s) (h p) (w q) -> b t h w (c s p q)", s=4, p=8, q=8)
        z = torch.cat(((head @ self.first.T) * self.gain_first, (tail @ self.rest.T) * self.gain_rest), 1)
        return rearrange(z, "b t h w c -> b c t h w").contiguous()

    def decode(self, z: Tensor) -> Tensor:
        """[B, C, f, h, w] -> [B, 3, F, 8h, 8w]."""
        z = rearrange(z.float(), "b c t h w -> b t h w c")
        head = (z[:, :1] / self.gain_first) @ self.first
        tail = (z[:, 1:] / self.gain_rest) @ self.rest
        video = torch.cat(
            (
                rearrange(head, "b t h w (c p q) -> b c t (h p) (w q)", p=8, q=8),
                rearrange(tail, "b t h w (c s p q) -> b c (t s) (h p) (w q)", s=4, p=8, q=8),
            ),
            2,
        )
        return video + self.mean[None, :, None, None, None]

    def save(self, path: Path) -> None:
        """Write the five arrays as safetensors."""
        names = ("first", "rest", "std_first", "std_rest", "mean")
        save_file({name: getattr(self, name).contiguous() for name in names}, path)

    @classmethod
    def load(cls, path: Path) -> LinearCodec:
        """Inverse of :meth:`save`. UserError for a file of anything else."""
        try:
            return cls(**read_tensors(path))
        except TypeError as error:
            raise UserError(
                f"{path}: not a linear codec ({error}); fit one with `python -m xdub.fit.codec`"
            ) from error


class WanCodec(nn.Module):
    """Wan's causal VAE through diffusers: 16 channels at x8 (Wan 2.1). Frozen; latents normalised by its statistics."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
        self.channels = len(mean)
        self.register_buffer("latents_mean", mean[None, :, None, None, None])
        self.register_buffer("latents_std", std[None, :, None, None, None])
        self.channel_std: Tensor
        self.register_buffer("channel_std", torch.ones(self.channels))

    def encode(self, video: Tensor) -> Tensor:
        """Mode of the posterior, normalised to zero mean and unit variance a channel."""
        latent_frames(video.shape[2])
        with torch.no_grad():
            z = self.vae.encode(video.to(self.vae.dtype)).latent_dist.mode().float()
        return (z - self.latents_mean) / self.latents_std

    def decode(self, z: Tensor) -> Tensor:
        raw = z.float() * self.latents_std + self.latents_mean
        return self.vae.decode(raw.to(self.vae.dtype)).sample.float()


def load_codec(cfg) -> Codec:
    """The codec of a recipe's ``codec`` section (``kind``, ``channels``, ``path``).

    ``linear``: the packaged face codec, or a file at ``path``. ``wan``: a diffusers folder or hub name at ``path``.
    """
    if cfg.kind == "linear":
        path = Path(cfg.path) if cfg.path else shipped_weights(PACKAGED_LINEAR_CODEC)
        if not path.is_file():
            raise UserError(f"codec.path={path}: no such file; fit one with `python -m xdub.fit.codec`")
        codec = LinearCodec.load(path)
    elif cfg.kind == "wan":
        if not cfg.path:
            raise UserError(
                "codec.kind=wan needs codec.path: a folder or hub name of a diffusers AutoencoderKLWan"
            )
        from diffusers import AutoencoderKLWan

        with loading_pretrained("codec.path", cfg.path):
            codec = WanCodec(AutoencoderKLWan.from_pretrained(cfg.path, **_subfolder(cfg.path)))
    else:
        raise UserError(f"codec.kind={cfg.kind!r}: use 'linear' or 'wan'")
    if codec.channels != cfg.channels:
        raise UserError(f"codec.channels={cfg.channels}, but the codec at {cfg.path} has {codec.channels}")
    return codec


def _subfolder(path: str) -> dict[str, str]:
    """A pipeline folder keeps its autoencoder under vae/."""
    folder = Path(path)
    has_own_config = (folder / "config.json").is_file()
    return {} if has_own_config else {"subfolder": "vae"}
