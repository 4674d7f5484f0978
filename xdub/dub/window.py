"""One window of a track as the sampler receives it, and the state that it leaves for the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from xdub.dub.segments import Joining


@dataclass(kw_only=True)
class Continuation:
    """State that one window of a track leaves for the next one, so that all latents are decoded as one video."""

    joining: Joining
    motion: int
    """Frames of a window that its predecessor generated."""
    latents: Tensor | None = None
    """[C, f, h, w] of the last window, if the next one continues them; None before the first one."""
    held: Tensor | None = None
    """[C, 1, h, w], the last latent, which waits for that of the next window to be averaged with it."""
    tail: np.ndarray | None = None
    """float32 [m,S,S,3], last frames of the window decoded by itself, which the next one encodes again."""
    decoder: object = None
    """State of the codec's decoder after these latents."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One segment of one video, F frames of S x S px, ready to be sampled."""

    frames: np.ndarray
    """uint8 [F,S,S,3]: frames to dub."""
    sound: np.ndarray
    """float32 [640 (F + 50)]: the new speech and a second on either side (`xdub.data.sound`)."""
    noise: tuple[object, ...]
    """Parts that seed the noise, e.g. (seed, clip id, segment); never the batch."""
    motion: np.ndarray | None = None
    """float32 [m,S,S,3], 0..255: earlier generated frames with which this window begins."""
    hidden: np.ndarray | None = None
    """bool [F,S,S] for a generator: M_vis, the pixels to inpaint."""
    audio: Tensor | None = None
    """float32 [T, d]: rows cut from the features of the whole recording. None: they are computed from `sound`."""
    continuation: Continuation | None = None
    """State of the track, if its latents are decoded as one video; the sampler updates it."""
    last: bool = False
    """No window of the track follows."""
