"""Stream of dubbed frames: memory holds one window, for a video of any length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from xdub.data.recording import Recording
from xdub.data.transforms import crop
from xdub.dub.face_runs import FaceRun
from xdub.dub.paste import make_patches, paste_patch
from xdub.dub.segments import PAPER, Joining
from xdub.dub.tracks import Joiner
from xdub.dub.window_sampler import WindowSampler

OnCrops = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""Function of the model's crops float32 [K,S,S,3] in 0..255, its input uint8 [K,S,S,3] and the face bool [K,S,S]."""


@dataclass(frozen=True, kw_only=True)
class Dubber:
    """A sampler with everything that a video needs besides its frames."""

    sampler: WindowSampler
    sound: np.ndarray
    """float32 [N + 32,000], the new speech from the first output frame on, between two seconds of zeros."""
    size: int
    """Side of the model's face crop, px."""
    window: int
    """Frames of a window."""
    motion: int
    """Frames of a window that its predecessor generated."""
    feather: float
    """Sigma of the mask's feathering, px of the crop."""
    seed: int
    """Seed of the noise."""
    joining: Joining = PAPER
    """The way in which the windows of a face continue one another."""
    on_crops: OnCrops | None = None
    """Function that is called with every piece before it is pasted back."""

    def frames(self, frames: Iterable[np.ndarray], runs: Sequence[FaceRun]) -> Iterator[np.ndarray]:
        """Yield all frames uint8 [H,W,3] in order; frames outside of the runs are unchanged."""
        frames, position = iter(frames), 0
        recording = self.sampler.recording(self.sound)
        for run in runs:
            yield from islice(frames, run.start - position)
            yield from self._run(frames, run, recording)
            position = run.start + len(run)
        yield from frames

    def _run(
        self, frames: Iterator[np.ndarray], run: FaceRun, recording: Recording | None
    ) -> Iterator[np.ndarray]:
        joiner = Joiner(
            len(run),
            self.sound,
            ("dub", self.seed, run.start),
            window=self.window,
            motion=self.motion,
            first_frame=run.start,
            recording=recording,
            joining=self.joining,
        )
        # Pictures that were read and not yet yielded.
        pictures: deque[np.ndarray] = deque()
        crops: dict[int, np.ndarray] = {}
        taken = 0
        for segment in joiner.segments:
            index = joiner.index(segment)
            for picture in islice(frames, int(index.max()) + 1 - taken):
                pictures.append(picture)
                crops[taken] = crop(picture[None], run.boxes[taken : taken + 1], self.size)[0]
                taken += 1
            source = np.stack([crops[n] for n in index])
            face, lips = run.masks(index, self.size)
            window = joiner.window(segment, source, face if self.sampler.masked else None)
            new = joiner.join(segment, self.sampler([window])[0])
            part = segment.offsets()
            if self.on_crops is not None:
                self.on_crops(new, source[part], face[part])
            rendered = self.sampler.roundtrip(source)[part]
            for n, patch in zip(
                range(segment.keep, segment.stop),
                make_patches(new, rendered, face[part], lips[part], self.feather),
                strict=True,
            ):
                yield paste_patch(pictures.popleft(), patch, run.boxes[n])
            crops = {n: value for n, value in crops.items() if n >= segment.stop - self.window}
