"""Sound in a temporary file, so that the memory of a reader does not grow with the length of its file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 1 << 16
"""Number of samples that are read at once: 256 kB."""
BYTES = 4
"""Bytes of a sample."""


class StoredSound:
    """Mono samples float32 [N] in a file without a name, which is read in slices like an array.

    The whole sound is in memory only where `numpy.asarray` or a slice of all of it is called for.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """Create an empty sound. ``folder`` is on the disk that holds it, by default the one for temporary files."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._size = 0
        self.gain = 1.0
        """Factor that is applied to all samples when they are read; they are clipped to [-1, 1] after it."""
        self.clipped = False
        """True: samples are scaled and clipped when they are read."""
        self.peak = 0.0
        """Largest absolute sample that was appended; NaN if a sample was not a number."""

    @property
    def size(self) -> int:
        """Number of samples."""
        return self._size

    def __len__(self) -> int:
        return self._size

    def append(self, samples: np.ndarray) -> None:
        """Append samples [n]."""
        if not samples.size:
            return
        self._file.seek(self._size * BYTES)
        self._file.write(np.ascontiguousarray(samples, np.float32).data)
        self._size += samples.size
        # `fmax` would hide samples that are not numbers.
        self.peak = float(np.maximum(self.peak, np.abs(samples).max()))

    def pad(self, count: int) -> None:
        """Append ``count`` samples of silence."""
        for begin in range(0, count, BLOCK):
            self.append(np.zeros(min(BLOCK, count - begin), np.float32))

    def cut(self, size: int) -> None:
        """Remove the samples from index ``size`` on."""
        if size < self._size:
            self._file.truncate(size * BYTES)
            self._size = size

    def blocks(self, multiple: int = 1) -> Iterator[np.ndarray]:
        """Yield all samples in blocks of about `BLOCK`, and of a multiple of ``multiple`` but for the last."""
        length = max(1, BLOCK // multiple) * multiple
        for begin in range(0, self._size, length):
            yield self[begin : begin + length]

    def __getitem__(self, index: slice) -> np.ndarray:
        """Return a slice with a step of 1 as float32 [n]."""
        begin, end, step = index.indices(self._size)
        if step != 1:
            raise ValueError(f"a stored sound is read with a step of 1, got {step}")
        samples = np.empty(max(0, end - begin), np.float32)
        self._file.seek(begin * BYTES)
        view = samples.data.cast("B")
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                raise OSError(f"a temporary file with sound ends after {done} of {len(view)} bytes")
            done += count
        if self.clipped:
            if self.gain != 1.0:
                samples *= np.float32(self.gain)
            np.clip(samples, -1.0, 1.0, out=samples)
        return samples

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stored sound is read into a new array")
        samples = self[:]
        return samples if dtype is None else samples.astype(dtype, copy=False)

    def close(self) -> None:
        """Delete the file; it is also deleted with the object."""
        self._file.close()
