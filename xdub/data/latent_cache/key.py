"""The key of a cache: everything besides the clips that decides the latents and features of their windows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from xdub.config import Recipe, inpaints, network_digests
from xdub.config.shipped import shipped_weights
from xdub.files.content import cached_sha256

FORMAT = 1
"""Version of the files of a cache."""
SHIPPED_CODEC = "linear_codec_48.safetensors"
"""Shipped file of the codec that a recipe of kind ``linear`` has by default."""
WORDS = {
    "format": "another version of the format",
    "codec": "another codec",
    "audio": "another audio encoder",
    "speech": "another model.speech",
    "inpaints": "latents for the other kind of phase",
    "window": "another window",
    "stride": "another train.window_stride",
    "precision": "another train.precision",
}
"""Field of a key -> words for a cache that differs in it."""


@dataclass(frozen=True, kw_only=True)
class LatentKey:
    """Networks, precision and grid of a cache. Phases with an equal key share the cache of a data set."""

    format: int = FORMAT
    codec: dict[str, Any]
    """Kind, channels and sha256 of the codec."""
    audio: dict[str, Any]
    """Kind, width and sha256 of the audio encoder."""
    speech: str
    """The recipe's `model.speech`."""
    inpaints: bool
    """True: target, masked target, and single reference frames. False: target and V'."""
    window: int
    """Frames of a window."""
    stride: int
    """Grid of windows and reference frames, in frames."""
    precision: str
    """The recipe's `train.precision`, in which the codec computes and the cache stores latents and features."""

    @cached_property
    def digest(self) -> str:
        """16 hex digits, the name of the cache's folder."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values, for a JSON file."""
        return asdict(self)

    def difference(self, other: dict[str, Any]) -> str:
        """Return words for what another key, as plain values, has in place of this one's values."""
        own = asdict(self)
        return ", ".join(words for name, words in WORDS.items() if other.get(name) != own[name])


def latent_key(recipe: Recipe, phase: str) -> LatentKey:
    """Return the key of a phase's latents. Raise UserError if a network has no file, or its file cannot be read."""
    digests = network_digests(recipe, (phase,), roles=("codec", "audio"))
    codec, audio = recipe.codec, recipe.audio
    shipped = cached_sha256(shipped_weights(SHIPPED_CODEC))
    return LatentKey(
        codec={"kind": codec.kind, "channels": codec.channels, "sha256": digests.get("codec", shipped)},
        # An encoder without weights is known by its kind and width.
        audio={"kind": audio.kind, "dim": audio.dim, "sha256": digests.get("audio")},
        speech=recipe.model.speech,
        inpaints=inpaints(phase),
        window=recipe.window(phase),
        stride=recipe.for_phase(phase).window_stride,
        precision=recipe.train.precision,
    )
