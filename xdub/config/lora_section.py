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


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters: those of the lip and texture experts (paper 3.3), and that of a phase with `train.tune=adapter`."""

    rank: Annotated[int, POSITIVE]
    alpha: Annotated[float, POSITIVE]
    targets: Annotated[tuple[str, ...], DIFFERENT]
    """Names of linear layers, compared with the end of the module path; `LORA_TARGETS` lists those of the blocks."""

    def failed_checks(self, path: str, kind: str) -> Iterator[str]:
        """Yield a message for every target that names no layer of a block of a backbone of this kind."""
        names = LORA_TARGETS[kind]
        for target in self.targets:
            if not any(f".{name}".endswith(f".{target}") or target.endswith(f".{name}") for name in names):
                yield f"{path}.targets={list(self.targets)}: {target} names no layer; valid: {', '.join(names)}"
