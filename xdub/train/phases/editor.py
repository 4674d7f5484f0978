"""Phase 2, the mask-free editor at high noise (3.2, 3.3): it predicts V from V' and V's audio."""

from __future__ import annotations

from xdub.train.phases.generator import loss

__all__ = ["loss"]
