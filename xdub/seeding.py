"""Random generators decided by named parts, e.g. (seed, epoch, sample id); all randomness flows through them.

The same parts give the same stream in every process and at every world size, so a resumed or resized job sees the
same noise, timesteps and windows.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stable_seed(*parts: object) -> int:
    """Return a 63-bit integer that depends on the parts alone (not on Python's salted ``hash``)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(*parts: object) -> np.random.Generator:
    """Return a NumPy generator decided by the parts."""
    return np.random.default_rng(stable_seed(*parts))


def torch_rng(*parts: object) -> torch.Generator:
    """Return a torch CPU generator decided by the parts."""
    # Data actors work without torch.
    import torch

    return torch.Generator().manual_seed(stable_seed(*parts))
