"""Damage of files, drawn from a seed, for tests and `python -m perf mutations`."""

from __future__ import annotations

import numpy as np

KINDS = ("bits", "zeros", "noise", "cut", "hole", "twice", "swap", "header", "numbers", "tail")
"""Kinds of damage; `mutate` describes them."""


def mutate(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return the bytes of a file with one kind of damage.

    Args:
        data: at least 64 bytes.
        kind: "bits" flips 1 to 64 bits, "zeros" and "noise" overwrite a stretch, "cut" drops the end, "hole" drops a
            stretch, "twice" repeats one, "swap" exchanges two, "header" and "tail" change up to 16 bytes among the
            first 512 and the last 2048, and "numbers" overwrites up to 8 aligned words with extreme numbers.
    """
    damaged = bytearray(data)
    size = len(damaged)
    length = int(rng.integers(1, max(2, size // 8)))
    begin = int(rng.integers(0, size - length))
    if kind == "bits":
        for offset in rng.integers(0, size, rng.integers(1, 65)):
            damaged[offset] ^= 1 << int(rng.integers(8))
    elif kind == "zeros":
        damaged[begin : begin + length] = bytes(length)
    elif kind == "noise":
        damaged[begin : begin + length] = rng.bytes(length)
    elif kind == "cut":
        del damaged[int(rng.integers(1, size)) :]
    elif kind == "hole":
        del damaged[begin : begin + length]
    elif kind == "twice":
        damaged[begin:begin] = damaged[begin : begin + length]
    elif kind == "swap":
        other = int(rng.integers(0, size - length))
        first, second = bytes(damaged[begin : begin + length]), bytes(damaged[other : other + length])
        damaged[begin : begin + length], damaged[other : other + length] = second, first
    elif kind in {"header", "tail"}:
        low, high = (0, min(512, size)) if kind == "header" else (max(0, size - 2048), size)
        for offset in rng.integers(low, high, rng.integers(1, 17)):
            damaged[offset] = int(rng.integers(256))
    elif kind == "numbers":
        for offset in rng.integers(0, size // 4 - 1, rng.integers(1, 9)) * 4:
            damaged[offset : offset + 4] = EXTREME[int(rng.integers(len(EXTREME)))]
    else:
        raise ValueError(f"damage {kind!r} is not one of: {', '.join(KINDS)}")
    return bytes(damaged)


EXTREME = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\x01",
    b"\0\xff\xff\xff",
)
"""Words that sizes, counts and times rarely expect."""
