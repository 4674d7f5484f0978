"""Shapes of a `WanDiT`, and the published sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xdub.config import ModelConfig
from xdub.geometry import CodecGeometry
from xdub.speech_windows import speech_windows


@dataclass(frozen=True, kw_only=True)
class WanConfig(ModelConfig):
    """A recipe's section `model` of kind `wan`, and the facts of codec, audio encoder and phase."""

    geometry: CodecGeometry
    """Geometry of the codec: C latent channels, and the audio rows of a latent frame."""
    masked_input: bool = False
    """True for the generator: z_mask has an embedding of its own, which is added to that of z_t (B.2)."""
    audio_dim: int | None = None
    """Width of the audio encoder's features. None: a plain Wan, without audio attention."""
    freq_dim: int = 256
    """Width of the timestep's sinusoid."""
    eps: float = 1e-6
    """Added to the variance in every norm."""

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of 2 x num_heads ({2 * self.num_heads})"
            )
        if self.patch[0] != 1:
            raise ValueError(
                f"patch={self.patch}: a patch spans one latent frame, the first number must be 1"
            )
        if self.text_dim is None:
            raise ValueError("text_dim must be the width of the prompt's embedding, 4096 for UMT5")

    @property
    def inner(self) -> int:
        """Inner width of the FFN."""
        return self.ffn_dim if self.ffn_dim is not None else int(self.ffn_ratio * self.hidden_size)

    @property
    def audio_window(self) -> int:
        """Rows of audio features that a latent frame attends to."""
        return speech_windows(self.speech, self.geometry).rows


@dataclass(frozen=True, kw_only=True)
class PublishedSize:
    """A published network: its signature, and the config that reproduces its names and shapes."""

    name: str
    signature: str
    """`xdub.files.tensors.signature` of its tensors under the original names."""
    config: WanConfig = field(repr=False)


def _wan(hidden: int, ffn: int, layers: int, channels: int, space: int, **changes: Any) -> WanConfig:
    return WanConfig(
        kind="wan",
        hidden_size=hidden,
        num_heads=hidden // 128,
        num_layers=layers,
        ffn_dim=ffn,
        text_dim=4096,
        order="reference_first",
        geometry=CodecGeometry(channels=channels, time=4, space=space),
        **changes,
    )


PUBLISHED = (
    PublishedSize(
        name="Wan 2.1 T2V-1.3B",
        signature="9269f8db9040a9d860eaca435be61814",
        config=_wan(1536, 8960, 30, 16, 8),
    ),
    PublishedSize(
        name="Wan 2.1 T2V-14B",
        signature="aafcfd9672c3a2456dc46e1cb6e52c70",
        config=_wan(5120, 13824, 40, 16, 8),
    ),
    PublishedSize(
        name="Wan 2.2 TI2V-5B",
        signature="1f5ab7703c6fc803fdded85ff040c316",
        config=_wan(3072, 14336, 30, 48, 16),
    ),
    PublishedSize(
        name="X-Dub",
        signature="0196e3de8b3ccced7e7e939e7f901e0b",
        config=_wan(3072, 14336, 30, 48, 16, speech="published", audio_dim=2048, round_timesteps=True),
    ),
    PublishedSize(
        name="TBDub",
        signature="da12f645b7edaedb855f6bd8cee7b24c",
        config=_wan(3072, 14336, 30, 48, 16, speech="published", audio_dim=4096, round_timesteps=True),
    ),
)
"""Sizes of all published networks that `WanDiT` loads; several releases have the names and shapes of one entry."""


def published_size(signature: str) -> PublishedSize | None:
    """Return the published network of a signature; None for another network."""
    return next((size for size in PUBLISHED if size.signature == signature), None)
