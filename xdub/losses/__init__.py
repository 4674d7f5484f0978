"""Losses that the phases minimise (paper Eq. 1, 12, 13)."""
