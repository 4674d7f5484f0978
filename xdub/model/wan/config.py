"""Shapes of a `WanDiT`."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import ModelConfig
from xdub.geometry import CodecGeometry
from xdub.perception.open_models.wan_config import EPS
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
    eps: float = EPS
    """Added to the variance in every norm."""
    cross_attn_norm: bool = True
    """True where a norm with weights precedes the attention to the prompt, as in all releases."""

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
