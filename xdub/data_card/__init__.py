"""The card of a data set: one HTML page with its contents, its checks, its masks, its rejects and its cost."""

from __future__ import annotations

from xdub.data_card.card import CARD, write_card

__all__ = ["CARD", "write_card"]
