"""Video codecs: 3D causal autoencoders; `CodecGeometry` holds how each divides time and space (paper B.1).

The paper names no factors. Four frames and 8 px are the factors of the open Wan 2.1 VAE, which agree with the paper's
25 and 77 frames; the VAE of Wan 2.2 has 4 frames and 16 px.

A codec's first latent holds one frame, every other one ``geometry.time`` frames, and no latent depends on later frames.
Latents are scaled so that the network receives values of order one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from xdub.config import CodecConfig, network_path
from xdub.config.shipped import shipped_weights
from xdub.errors import UserError, loading_pretrained
from xdub.files.tensors import read_tensors, write_tensors
from xdub.geometry import CodecGeometry
from xdub.model.wan_decoder import checkpoint_blocks, decode_latents, decode_next
from xdub.model.wan_vae_file import SUFFIXES as VAE_SUFFIXES
from xdub.model.wan_vae_file import read_wan_vae
from xdub.perception.network_files import load_pretrained

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

PACKAGED_LINEAR_CODEC = "linear_codec_48.safetensors"
"""File of the default codec in `xdub/weights_tiny`."""


class Codec(Protocol):
    """The interface of a codec to the rest of the code."""

    @property
    def geometry(self) -> CodecGeometry:
        """Channels, and factors of time and space."""

    @property
    def channel_std(self) -> Tensor:
        """[C] standard deviation of each latent channel on faces."""

    machine_independent: bool
    """True if the latents have the same bits on every machine; a CPU then computes them on one thread."""

    def to(self, device: str | torch.device, /) -> Codec:
        """Return the codec on another device."""

    def computing_in(self, dtype: torch.dtype, /) -> Codec:
        """Return the codec with its network in another type; latents and videos stay float32."""

    def encode(self, video: Tensor) -> Tensor:
        """Encode a video [B, 3, F, H, W] in [-1, 1] as z [B, C, f, h, w] float32.

        Raise UserError if a size does not fit.
        """

    def decode(self, z: Tensor) -> Tensor:
        """Return the video [B, 3, F, H, W] of z [B, C, f, h, w]: differentiable, not clamped."""

    def decode_slice(self, z: Tensor, start: int, latents: int) -> Tensor:
        """Return the frames [B, 3, n, H, W] of ``latents`` latents of z [B, C, f, h, w] from ``start`` on.

        They are equal to the same frames of `decode`; n is ``latents * time``, less ``time - 1`` if ``start`` is 0.
        Gradients reach the latents of the slice only.
        """

    def decode_next(self, z: Tensor, state: object, /) -> tuple[Tensor, object]:
        """Decode latents z [B, C, n, h, w] that follow earlier ones; return their frames and the state after them.

        ``state`` is None for the first latents of a video, else the state that the earlier latents left. The frames of
        all calls together are those of `decode`. No gradients.
        """


class LinearCodec(nn.Module):
    """Principal components of 8x8x3 (first frame) and 4x8x8x3 patches of faces: exact to decode and to differentiate.

    It is the default codec. Component c is divided by the square root of its standard deviation ("half-whitened"):
    coarse channels stay stronger than fine ones, as in an image, yet fine ones are not lost in the noise.
    """

    machine_independent = True
    first: Tensor
    rest: Tensor
    std_first: Tensor
    std_rest: Tensor
    mean: Tensor
    gain_first: Tensor
    gain_rest: Tensor

    def __init__(
        self, first: Tensor, rest: Tensor, std_first: Tensor, std_rest: Tensor, mean: Tensor
    ) -> None:
        """Keep first [C, 192] and rest [C, 768], orthonormal rows; std_* [C] of the raw components; mean [3] colour."""
        super().__init__()
        self.geometry = CodecGeometry(
            channels=rest.shape[0],
            time=rest.shape[1] // first.shape[1],
            space=math.isqrt(first.shape[1] // 3),
        )
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
        """[C] standard deviation of each latent channel on faces."""
        return self.std_rest * self.gain_rest

    def encode(self, video: Tensor) -> Tensor:
        """Encode a video [B, 3, F, H, W] in [-1, 1] as z [B, C, f, H/8, W/8].

        Raise UserError if a size does not fit.
        """
        self.geometry.latent_frames(video.shape[2])
        time, space = self.geometry.time, self.geometry.space
        if video.shape[3] % space or video.shape[4] % space:
            raise UserError(f"{video.shape[4]}x{video.shape[3]} px is not divisible by {space}")
        centred = video.float() - self.mean[None, :, None, None, None]
        head = rearrange(centred[:, :, :1], "b c t (h p) (w q) -> b t h w (c p q)", p=space, q=space)
        tail = rearrange(
            centred[:, :, 1:], "b c (t s) (h p) (w q) -> b t h w (c s p q)", s=time, p=space, q=space
        )
        z = torch.cat(((head @ self.first.T) * self.gain_first, (tail @ self.rest.T) * self.gain_rest), 1)
        return rearrange(z, "b t h w c -> b c t h w").contiguous()

    def decode(self, z: Tensor) -> Tensor:
        """Return the video [B, 3, F, 8h, 8w] of z [B, C, f, h, w]."""
        return self.decode_slice(z, 0, z.shape[2])

    def decode_slice(self, z: Tensor, start: int, latents: int) -> Tensor:
        """Return the frames [B, 3, n, 8h, 8w] of a slice; every latent is decoded by itself."""
        return self._decode(z[:, :, start : start + latents], heads=1 if start == 0 else 0)

    def decode_next(self, z: Tensor, state: object, /) -> tuple[Tensor, object]:
        """Return the frames of z, and a mark that the video has begun: every latent is decoded by itself."""
        return self._decode(z, heads=1 if state is None else 0), True

    def _decode(self, z: Tensor, *, heads: int) -> Tensor:
        """Decode latents z, of which the first ``heads`` (0 or 1) have one frame."""
        time, space = self.geometry.time, self.geometry.space
        z = rearrange(z.float(), "b c t h w -> b t h w c")
        head = (z[:, :heads] / self.gain_first) @ self.first
        tail = (z[:, heads:] / self.gain_rest) @ self.rest
        video = torch.cat(
            (
                rearrange(head, "b t h w (c p q) -> b c t (h p) (w q)", p=space, q=space),
                rearrange(tail, "b t h w (c s p q) -> b c (t s) (h p) (w q)", s=time, p=space, q=space),
            ),
            2,
        )
        return video + self.mean[None, :, None, None, None]

    def computing_in(self, dtype: torch.dtype, /) -> LinearCodec:
        """Return the codec itself: its products are exact only in float32, and they are cheap."""
        return self

    def save(self, path: Path) -> None:
        """Write the five arrays as safetensors."""
        names = ("first", "rest", "std_first", "std_rest", "mean")
        write_tensors({name: getattr(self, name).contiguous() for name in names}, path)

    @classmethod
    def load(cls, path: Path) -> LinearCodec:
        """Read a file of `save`. Raise UserError for any other file."""
        try:
            return cls(**read_tensors(path))
        except TypeError as error:
            raise UserError(
                f"{path}: not a linear codec ({error}); fit one with `python -m xdub.fit.codec`"
            ) from error


class WanCodec(nn.Module):
    """Wan's causal VAE through diffusers, frozen; latents are normalised by the statistics in its configuration.

    Wan 2.1 has 16 channels at 8 px, Wan 2.2 48 channels at 16 px.
    """

    machine_independent = False
    latents_mean: Tensor
    latents_std: Tensor
    channel_std: Tensor

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        checkpoint_blocks(self.vae)
        config = vae.config
        mean, std = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
        self.geometry = CodecGeometry(
            channels=len(mean), time=config["scale_factor_temporal"], space=config["scale_factor_spatial"]
        )
        self.register_buffer("latents_mean", mean[None, :, None, None, None])
        self.register_buffer("latents_std", std[None, :, None, None, None])
        self.register_buffer("channel_std", torch.ones(len(mean)))

    def computing_in(self, dtype: torch.dtype, /) -> WanCodec:
        """Convert the weights of the VAE and return the codec; the latents' statistics stay float32."""
        # diffusers' own `to` prints a warning even where nothing needs fp32.
        nn.Module.to(self.vae, dtype)
        return self

    def encode(self, video: Tensor) -> Tensor:
        """Return the mode of the posterior [B, C, f, h, w], normalised to zero mean and unit variance a channel."""
        self.geometry.latent_frames(video.shape[2])
        with torch.no_grad():
            z = self.vae.encode(video.to(self.vae.dtype)).latent_dist.mode().float()
        return (z - self.latents_mean) / self.latents_std

    def decode(self, z: Tensor) -> Tensor:
        """Return the video [B, 3, F, H, W] float32 of normalised latents [B, C, f, h, w]."""
        return self.decode_slice(z, 0, z.shape[2])

    def decode_slice(self, z: Tensor, start: int, latents: int) -> Tensor:
        """Return the frames [B, 3, n, H, W] float32 of a slice, see `xdub.model.wan_decoder`."""
        return decode_latents(self.vae, self._raw(z), start, latents).float()

    def decode_next(self, z: Tensor, state: object, /) -> tuple[Tensor, object]:
        """Return the frames of z behind earlier latents, and the state, see `xdub.model.wan_decoder`."""
        frames, state = decode_next(self.vae, self._raw(z), state)
        return frames.float(), state

    def _raw(self, z: Tensor) -> Tensor:
        """Return the VAE's own latents, in its type, of normalised latents."""
        return (z.float() * self.latents_std + self.latents_mean).to(self.vae.dtype)


def load_codec(config: CodecConfig) -> Codec:
    """Load the codec of a recipe's ``codec`` section (``kind``, ``channels``, ``path``).

    ``linear``: the packaged face codec, or a file at its path. ``wan``, ``wan2.2``: a diffusers folder or hub name, or
    a file with the original names.
    Raise UserError if there is no such codec, or if it differs from the section.
    """
    path = network_path(config, "codec") or str(shipped_weights(PACKAGED_LINEAR_CODEC))
    codec: Codec = _load_linear(Path(path)) if config.kind == "linear" else _load_wan(path)
    if codec.geometry.channels != config.channels:
        raise UserError(
            f"codec.channels={config.channels}, but the codec at {path} has {codec.geometry.channels}"
        )
    if codec.geometry != config.geometry:
        raise UserError(
            f"codec.path={path}: a latent covers {codec.geometry.time} frames and {codec.geometry.space} px, "
            f"codec.kind={config.kind} means {config.geometry.time} and {config.geometry.space}"
        )
    return codec


def _load_linear(path: Path) -> LinearCodec:
    if not path.is_file():
        raise UserError(f"codec.path={path}: no such file; fit one with `python -m xdub.fit.codec`")
    return LinearCodec.load(path)


def _load_wan(path: str) -> WanCodec:
    if Path(path).suffix in VAE_SUFFIXES:
        return WanCodec(read_wan_vae(path))
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    vae = load_pretrained(AutoencoderKLWan, "codec.path", path, **_subfolder(path))
    with loading_pretrained("codec.path", path):
        return WanCodec(vae)


def _subfolder(path: str) -> dict[str, Any]:
    """Return diffusers' arguments for a pipeline folder, which keeps its autoencoder under vae/."""
    folder = Path(path)
    has_own_config = (folder / "config.json").is_file()
    return {} if has_own_config else {"subfolder": "vae"}
