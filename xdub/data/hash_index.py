"""An index of texts in about 25 bytes an entry: 64-bit hashes in a sorted array, the newest in a dictionary.

Two different texts share a hash with a probability of n^2 / 2^65 among n texts: 3e-8 for a million.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

LEAST = 4096
"""Number of new entries from which they are moved into the sorted array."""


def text_hash(*texts: str) -> int:
    """Return the 64-bit hash of one or several texts."""
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest(), "little")


def text_hashes(texts: Sequence[str]) -> np.ndarray:
    """Return the hashes [n] of many texts."""
    return np.fromiter((text_hash(text) for text in texts), np.uint64, len(texts))


class HashIndex:
    """Small numbers, 1 to 255, by 64-bit hash; 0 stands for an absent hash."""

    def __init__(self) -> None:
        self._keys, self._values = np.empty(0, np.uint64), np.empty(0, np.uint8)
        self._recent: dict[int, int] = {}
        self._new = 0

    def __len__(self) -> int:
        return len(self._keys) + self._new

    def __contains__(self, key: int) -> bool:
        return self.get(key) > 0

    def get(self, key: int) -> int:
        """Return the number of a hash; 0 if it is absent."""
        value = self._recent.get(key)
        return self._stored(key) if value is None else value

    def set(self, key: int, value: int) -> None:
        """Store the number of a hash, in place of an earlier one."""
        if key not in self._recent and not self._stored(key):
            self._new += 1
        self._recent[key] = value
        # The share of the array bounds both the memory of the dictionary and the cost of all moves.
        if len(self._recent) >= max(LEAST, len(self._keys) // 8):
            self._fold()

    def _stored(self, key: int) -> int:
        position = int(self._keys.searchsorted(np.uint64(key)))
        if position < len(self._keys) and int(self._keys[position]) == key:
            return int(self._values[position])
        return 0

    def update(self, keys: np.ndarray, values: np.ndarray | int = 1) -> None:
        """Store the numbers [n] of many hashes [n]; of equal hashes the last one counts."""
        self._fold()
        values = np.broadcast_to(np.asarray(values, np.uint8), keys.shape)
        self._move(keys, values)

    def _fold(self) -> None:
        """Move the dictionary into the sorted array."""
        count = len(self._recent)
        self._move(
            np.fromiter(self._recent, np.uint64, count), np.fromiter(self._recent.values(), np.uint8, count)
        )
        self._recent, self._new = {}, 0

    def _move(self, keys: np.ndarray, values: np.ndarray) -> None:
        keys, values = np.concatenate([self._keys, keys]), np.concatenate([self._values, values])
        # Of equal hashes the last is the newest.
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        self._keys, self._values = keys[last], values[order][last]
