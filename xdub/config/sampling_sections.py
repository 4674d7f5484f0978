"""Sections of a recipe on sampling: the pair factory and inference. Defaults are the paper's values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from xdub.config.checks import BAND, FRAMES, NOT_NEGATIVE, POSITIVE, SOLVER_STEPS


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """The pair factory (paper 3.1.2, B.3)."""

    segment_frames: Annotated[int, FRAMES] = 25
    motion_frames: Annotated[int, FRAMES] = 5
    feather_px: Annotated[float, NOT_NEGATIVE]
    """Sigma of the Gaussian that feathers the face mask, px of the crop."""
    identity_threshold: float | None = None
    """Lowest cosine between V and V'; None is the own threshold of `perception.identity` (`config/embedders.py`)."""
    mouth_threshold: Annotated[float, NOT_NEGATIVE] = 1.0
    """Least mean distance of 20 mouth points, px of the 112 px template."""
    sampler_steps: Annotated[int, SOLVER_STEPS]
    """Steps of `solver`: `heun` evaluates the model twice in every step but the last, the others once."""
    solver: Literal["euler", "heun", "ab2"] = "euler"
    """Solver of `xdub/diffusion/sampler.py`; docs/sampling.md compares them at equal cost."""
    sampler_shift: Annotated[float, POSITIVE] = 1.0
    """Shift of the sampler's times, Eq. 2: above 1 the steps crowd at high noise and the last step is long. A small
    model's details become smoother, and its lips follow the speech better."""
    render_twins: Annotated[float, NOT_NEGATIVE] = 0.0
    """Share of exact pairs from the renderer among the training pairs."""
    relight: Annotated[float, NOT_NEGATIVE] = 0.0
    """Share of uniformly lit pairs that get new light, the same on both sides (paper 3.1.2)."""
    batch: Annotated[int, POSITIVE] = 8
    """Clips whose segments are sampled together; a lost worker repeats at most this many clips."""
    compile: bool = False
    """Compile the sampler's step, for `batch` clips."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message if a segment has no frames of its own."""
        if self.motion_frames >= self.segment_frames:
            yield (
                f"{path}.motion_frames={self.motion_frames} leaves nothing of "
                f"{path}.segment_frames={self.segment_frames}"
            )


@dataclass(frozen=True, kw_only=True)
class DubConfig:
    """Inference (paper 3.3)."""

    sampler_steps: Annotated[int, SOLVER_STEPS]
    solver: Literal["euler", "heun", "ab2"] = "euler"
    sampler_shift: Annotated[float, POSITIVE] = 1.0
    compile: bool = False
    """Compile the sampler's step, for one window."""
    window: Annotated[int, FRAMES]
    motion_frames: Annotated[int, FRAMES] = 5
    lip_band: Annotated[tuple[float, float], BAND] = (0.4, 0.6)
    """Timesteps t at which the lip expert is on."""
    texture_band: Annotated[tuple[float, float], BAND] = (0.0, 0.3)

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message if a window has no frames of its own."""
        if self.motion_frames >= self.window:
            yield f"{path}.motion_frames={self.motion_frames} leaves nothing of {path}.window={self.window}"
