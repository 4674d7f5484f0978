"""Footprints of footage: words of its sound and hashes of its pictures, nearly equal for all its encodings.

The sound has 100 words of 32 bits a second (Haitsma and Kalker 2002): the signs of energy differences between
neighbouring bands and times. A picture has 64 bits: the signs of its lowest frequencies about their median.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xdub.geometry import SAMPLE_RATE, SAMPLES_PER_FRAME

HOP = 160
"""Samples from word to word: 10 ms."""
WINDOW = 5920
"""Samples of a word: 0.37 s, so that copies that begin between two hops have nearly equal words."""
BANDS = 33
"""Bands of which neighbours are compared, evenly on a logarithmic scale."""
LOW, HIGH = 300.0, 2000.0
"""Range of the bands in Hz, which every codec keeps."""
WORDS_PER_FRAME = SAMPLES_PER_FRAME // HOP
"""Words of a video frame."""
HASH_SIDE = 32
"""Side in px of the picture that is hashed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Footprint:
    """The footprint of a clip of F frames."""

    sound: np.ndarray
    """[W] uint32; W = 4 F - 36 for clips of at least 10 frames"""
    pictures: np.ndarray
    """[F] uint64"""


def footprint(frames: np.ndarray, audio: np.ndarray) -> Footprint:
    """Return the footprint of frames uint8 [F, S, S, 3] with their sound [640 F] at 16 kHz."""
    return Footprint(
        sound=sound_words(audio), pictures=np.array([picture_hash(f) for f in frames], np.uint64)
    )


def sound_words(audio: np.ndarray) -> np.ndarray:
    """Return the words [W] uint32 of a wave [N]; none for less than 0.38 s."""
    if len(audio) < WINDOW + HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(audio, np.float32), WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32), axis=1)
    energies = (spectrum.real**2 + spectrum.imag**2) @ _bands()
    # [W + 1, 32]
    slopes = energies[:, :-1] - energies[:, 1:]
    bits = np.diff(slopes, axis=0) > 0
    return (bits.astype(np.uint32) << np.arange(BANDS - 1, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)


def picture_hash(frame: np.ndarray) -> np.uint64:
    """Return the 64 bits of a picture uint8 [H, W, 3]."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(small.astype(np.float32))[:8, :8].flatten()
    # The first coefficient is the brightness.
    bits = lowest > np.median(lowest[1:])
    return np.packbits(bits).view(">u8")[0].astype(np.uint64)


def differing_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the number of bits in which unsigned integers [N] differ."""
    return np.bitwise_count(a ^ b)


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """Return which frequencies belong to each band, [WINDOW / 2 + 1, 33] float32."""
    edges = np.geomspace(LOW, HIGH, BANDS + 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)[:, None]
    return ((hertz >= edges[:-1]) & (hertz < edges[1:])).astype(np.float32)
