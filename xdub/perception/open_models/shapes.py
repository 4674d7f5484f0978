"""Names and shapes of the tensors of the released diffusion transformers, in both layouts.

D width, F inner width of the feed-forward network, C latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from xdub.perception.open_models.wan_names import diffusers_name

Shapes = dict[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""
FREQUENCIES, TEXT, PATCH = 256, 4096, (1, 2, 2)
"""Width of the timestep's sinusoid, width of the text embedding, patch in latents (t, y, x)."""
SPEECH, INNER, WINDOW, BLOCKS = 1536, 6144, 100, 4
"""Speech projection of X-Dub: its width, the inner width of its feed-forward network, longest window, blocks."""


def wan(
    width: int, inner: int, channels: int, layers: int, *, text: int = TEXT, patch: Sequence[int] = PATCH
) -> Shapes:
    """Return the tensors of a Wan text-to-video transformer with the original names."""
    shapes: Shapes = {
        "patch_embedding.weight": (width, channels, *patch),
        "patch_embedding.bias": (width,),
        "head.modulation": (1, 2, width),
    }
    shapes |= _linear("text_embedding.0", width, text) | _linear("text_embedding.2", width, width)
    shapes |= _linear("time_embedding.0", width, FREQUENCIES) | _linear("time_embedding.2", width, width)
    shapes |= _linear("time_projection.1", 6 * width, width)
    shapes |= _linear("head.head", math.prod(patch) * channels, width)
    for block in _blocks(layers):
        shapes[f"{block}.modulation"] = (1, 6, width)
        shapes |= _attention(f"{block}.self_attn", width) | _attention(f"{block}.cross_attn", width)
        shapes |= _norm(f"{block}.norm3", width)
        shapes |= _linear(f"{block}.ffn.0", inner, width) | _linear(f"{block}.ffn.2", width, inner)
    return shapes


def diffusers_wan(width: int, inner: int, channels: int, layers: int) -> Shapes:
    """Return the tensors of `wan` with the names of diffusers' WanTransformer3DModel."""
    return {diffusers_name(name): shape for name, shape in wan(width, inner, channels, layers).items()}


def editor(speech: int) -> Shapes:
    """Return the tensors of X-Dub's editor: Wan 2.2 5B with audio attention, for features of width ``speech``."""
    width, layers = 3072, 30
    shapes = wan(width, 14336, 48, layers)
    shapes |= _linear("audio_embedding.proj_in", SPEECH, speech)
    shapes |= _linear("audio_embedding.proj_out", width, SPEECH)
    for layer in range(BLOCKS):
        name = f"audio_embedding.layers.{layer}"
        shapes |= _norm(f"{name}.norm1", SPEECH) | _norm(f"{name}.norm2", SPEECH)
        shapes |= {f"{name}.attn.to_{part}.weight": (SPEECH, SPEECH) for part in "qkv"}
        shapes |= _linear(f"{name}.attn.to_out.0", SPEECH, SPEECH)
        shapes |= _linear(f"{name}.ff.net.0.proj", 2 * INNER, SPEECH)
        shapes |= _linear(f"{name}.ff.net.2", SPEECH, INNER)
        shapes[f"{name}.pos_embed.pe"] = (1, WINDOW, SPEECH)
    for block in _blocks(layers):
        shapes |= _norm(f"{block}.norm4", width) | _attention(f"{block}.audio_attn", width)
    return shapes


def first_difference(
    shapes: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]
) -> str | None:
    """Return words for the first tensor, by name, that is missing, left over or of another shape; None if equal."""
    for name in sorted(shapes.keys() | expected.keys()):
        if name not in shapes:
            return f"{name} {list(expected[name])} is missing"
        if name not in expected:
            return f"{name} {list(shapes[name])} is left over"
        if tuple(shapes[name]) != tuple(expected[name]):
            return f"{name} has shape {list(shapes[name])}, not {list(expected[name])}"
    return None


def _blocks(layers: int) -> Iterator[str]:
    return (f"blocks.{number}" for number in range(layers))


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _attention(name: str, width: int) -> Shapes:
    """Return the tensors of an attention with RMSNorm of queries and keys over the whole width."""
    shapes: Shapes = {}
    for part in "qkvo":
        shapes |= _linear(f"{name}.{part}", width, width)
    return shapes | {f"{name}.norm_{part}.weight": (width,) for part in "qk"}
