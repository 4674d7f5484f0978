"""Frozen third-party networks behind small classes: landmarks, identity, sync; and the registry of their weights."""
