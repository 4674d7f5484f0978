"""Phase 2, the mask-free editor at high noise (3.2, 3.3): V' and V's audio in, V out."""

from __future__ import annotations

from xdub.train.phases.generator import loss

__all__ = ["loss"]
