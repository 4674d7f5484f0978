"""Recipe section of the adapters, and the names of the layers that may have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from xdub.config.checks import DIFFERENT, POSITIVE

LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "xdub": ("qkv", "q", "kv", "out", "ffn.0", "ffn.2"),
    "wan": (
        *(f"{name}.{part}" for name in ("self_attn", "cross_attn", "audio_attn") for part in "qkvo"),
        "ffn.0",
        "ffn.2",
    ),
}
"""Kind of a backbone -> names of the linear layers of its blocks, all of which may have adapters."""
LORA_LAYERS: Mapping[str, tuple[str, ...]] = {
    "xdub": (
        *(f"attention_{axes}.{part}" for axes in ("2d", "3d") for part in ("qkv", "out")),
        *(f"{name}.{part}" for name in ("text", "audio") for part in ("q", "kv", "out")),
        "ffn.0",
        "ffn.2",
    ),
    "wan": LORA_TARGETS["wan"],
}
"""Kind of a backbone -> paths of these layers below ``blocks.<number>.``."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters: those of the lip and texture experts (paper 3.3), and that of a phase with `train.tune=adapter`."""

    rank: Annotated[int, POSITIVE]
    alpha: Annotated[float, POSITIVE]
    targets: Annotated[tuple[str, ...], DIFFERENT]
    """Names of linear layers, compared with the end of the module path; `LORA_TARGETS` lists those of the blocks."""

    def failed_targets(self, path: str, kind: str, blocks: int) -> Iterator[str]:
        """Yield a message for every target that names no layer of a backbone of this kind with so many blocks."""
        layers = [f"blocks.{number}.{layer}" for number in range(blocks) for layer in LORA_LAYERS[kind]]
        for target in self.targets:
            if not any(is_target(layer, target) for layer in layers):
                valid = ", ".join(LORA_TARGETS[kind])
                yield f"{path}.targets={list(self.targets)}: {target} names no layer; valid: {valid}"


def is_target(layer: str, target: str) -> bool:
    """Return whether a target names the layer of a module path, whose last parts it must be."""
    return f".{layer}".endswith(f".{target}")
