"""Sections of a recipe that select networks of others: codec, audio encoder, and the networks of perception."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from xdub.config.checks import POSITIVE
from xdub.geometry import CodecGeometry

CODEC_FACTORS = {"linear": (4, 8), "wan": (4, 8), "wan2.2": (4, 16)}
"""Kind of codec -> (frames, px) that one latent covers in time and in space."""
HUBERT_STATES = range(9, 13)
"""Hidden states in a row of HuBERT. State 0 is the input of the first block, state n the output of block n."""
DERIVED = {"derived": True}
"""Metadata of a field that is no key of a recipe file: the recipe fills the field from its other keys."""


def _weights_folder() -> Any:
    """Return the field of a section that repeats `Recipe.weights` for the section's loaders."""
    return field(default=None, metadata=DERIVED)


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Video codec, causal in time; `CODEC_FACTORS` has the factors of each kind."""

    kind: Literal["linear", "wan", "wan2.2"]
    """``wan`` is the VAE of Wan 2.1 (16 channels), ``wan2.2`` that of Wan 2.2 (48 channels)."""
    channels: Annotated[int, POSITIVE]
    path: str | None = None
    """Weights: a file or folder. None: the codec in the package (linear), or the one in the recipe's `weights`."""
    weights: str | None = _weights_folder()
    """The recipe's `weights`."""

    @property
    def geometry(self) -> CodecGeometry:
        """The codec's division of time and space, known before its weights are loaded."""
        time, space = CODEC_FACTORS[self.kind]
        return CodecGeometry(channels=self.channels, time=time, space=space)


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Audio features at 50 Hz (paper B.2)."""

    kind: Literal["logmel", "whisper", "whisper+wav2vec2", "hubert"]
    """``whisper+wav2vec2`` has the features of X-Dub's published editor, ``hubert`` those of TBDub's."""
    dim: Annotated[int, POSITIVE]
    """Width of one feature row: 2048 for the published ``whisper+wav2vec2``, 4096 for the published ``hubert``."""
    path: str | None = None
    """Weights: a folder or hub name. None: the encoder in the recipe's `weights`; log-mel has no weights."""
    weights: str | None = _weights_folder()
    """The recipe's `weights`."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message for a width that no encoder of the kind has."""
        states = len(HUBERT_STATES)
        if self.kind == "hubert" and self.dim % states:
            yield f"{path}.dim={self.dim} is not a multiple of {states}, the number of HuBERT's states in a row"


@dataclass(frozen=True, kw_only=True)
class PerceptionConfig:
    """Frozen network of each role; the embedded networks need no download, the production networks need their file.

    A ``path`` of None means the file in the recipe's `weights`, or the embedded network.
    """

    face: Literal["mediapipe"] = "mediapipe"
    mouth: Literal["landmarks", "readout"] = "landmarks"
    """Measure of lips in the pair filter: the face tracker, or the small network that reads the opening."""
    identity: Literal["mobilefacenet", "dlib", "arcface"] = "mobilefacenet"
    identity_path: str | None = None
    sync: Literal["tiny", "syncnet"] = "tiny"
    sync_path: str | None = None
    features: Literal["tiny", "clip"] = "tiny"
    features_path: str | None = None
    weights: str | None = _weights_folder()
    """The recipe's `weights`."""
