"""Sections of a recipe on sampling: the pair factory and inference. Defaults are the paper's values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from xdub.config.checks import (
    ADDED,
    BAND,
    EDGES,
    FRAMES,
    LEVELS,
    NEUTRAL,
    NOT_NEGATIVE,
    POSITIVE,
    SOLVER_STEPS,
)
from xdub.geometry import CodecGeometry


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
    require_other_utterance: bool = field(default=True, metadata=NEUTRAL)
    """Reject clips whose speaker has no other utterance. False: they get the speech of another speaker, or their own
    speech shifted. The choice changes which pairs are built, and no pair's content."""
    batch: Annotated[int, POSITIVE] = 8
    """Clips whose segments are sampled together; a lost worker repeats at most this many clips."""
    compile: bool = False
    """Compile the sampler's step, for `batch` clips."""
    offload: Literal["none", "blocks"] = field(default="none", metadata=NEUTRAL)
    """Tensors in CPU memory: none, or the network's blocks, of which the device then holds two at a time."""

    def failed_checks(self, path: str) -> Iterator[str]:
        """Yield a message if a segment has no frames of its own, or two options exclude each other."""
        if self.compile and self.offload != "none":
            yield f"{path}.offload={self.offload} needs {path}.compile=false: a compiled step fetches no blocks"
        if self.motion_frames >= self.segment_frames:
            yield (
                f"{path}.motion_frames={self.motion_frames} leaves nothing of "
                f"{path}.segment_frames={self.segment_frames}"
            )


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Weights of the guidance with which an editor dubs (`xdub.diffusion.guidance`); the defaults are X-Dub's."""

    reference: Annotated[float, NOT_NEGATIVE] = 2.5
    """Weight of the reference at level 1."""
    reference_levels: Annotated[tuple[float, float, float], LEVELS] = (0.3, 0.6, 1.0)
    """Factors on the weight of the reference at low, middle and high t."""
    reference_edges: Annotated[tuple[float, float, float, float], EDGES] = (0.35, 0.45, 0.75, 0.85)
    """Times between which the factor rises: from the low to the middle level, and from the middle to the high level."""
    audio: Annotated[float, NOT_NEGATIVE] = 10.0
    """Weight of the speech at t = 1."""
    audio_power: Annotated[float, NOT_NEGATIVE] = 1.5
    """Power of t with which the weight of the speech falls."""
    audio_floor: Annotated[float, NOT_NEGATIVE] = 0.0
    """Smallest factor on the weight of the speech."""
    batched: bool = True
    """Evaluate the three branches in one batch. False: one after another, which needs less memory."""


@dataclass(frozen=True, kw_only=True)
class DubConfig:
    """Inference (paper 3.3)."""

    sampler_steps: Annotated[int, SOLVER_STEPS]
    solver: Literal["euler", "heun", "ab2"] = "euler"
    sampler_shift: Annotated[float, POSITIVE] = 1.0
    compile: bool = False
    """Compile the sampler's step, for one window."""
    offload: Literal["none", "blocks"] = field(default="none", metadata=NEUTRAL)
    """Tensors in CPU memory: none, or the network's blocks, of which the device then holds two at a time."""
    window: Annotated[int, FRAMES]
    motion_frames: Annotated[int, FRAMES] = 5
    lip_band: Annotated[tuple[float, float], BAND] = (0.4, 0.6)
    """Timesteps t at which the lip expert is on."""
    texture_band: Annotated[tuple[float, float], BAND] = (0.0, 0.3)
    guidance: GuidanceConfig | None = field(default=None, metadata=ADDED)
    """Guidance with three branches, as in X-Dub's and TBDub's releases. None: one branch."""
    border: Literal["none", "every_step", "last_step"] = field(default="none", metadata=ADDED)
    """Steps before which the outer ring of latents is copied from the source; `last_step`: after the last step only."""
    motion: Literal["frames", "latents"] = field(default="frames", metadata=ADDED)
    """Form in which a window gets the motion of its predecessor: frames, which are encoded again, or latents."""
    join: Literal["frames", "latents", "mean"] = field(default="frames", metadata=ADDED)
    """Decoding where windows continue frames: each window by itself, or the `latents` of all windows as one video, or
    the same with the `mean` of both windows in the latent at a join."""
    lead_in: bool = field(default=False, metadata=ADDED)
    """Begin the first window of a face with `motion_frames` copies of its first frame, which are cut off afterwards."""
    colour: Literal["none", "masked_rgb", "lab"] = field(default="none", metadata=ADDED)
    """Match of every generated crop's colours to its source: where both look alike, or over the whole crop in Lab."""

    def failed_checks(self, path: str, geometry: CodecGeometry) -> Iterator[str]:
        """Yield a message if a window has no frames of its own, or two options exclude each other."""
        if self.compile and self.offload != "none":
            yield f"{path}.offload={self.offload} needs {path}.compile=false: a compiled step fetches no blocks"
        if self.motion_frames >= self.window:
            yield f"{path}.motion_frames={self.motion_frames} leaves nothing of {path}.window={self.window}"
        if self.join == "frames":
            return
        if self.motion == "latents":
            yield f"{path}.join={self.join} needs {path}.motion=frames: continued latents are joined already"
        # The mean needs a latent besides the first one of the motion frames.
        least = geometry.time + 1 if self.join == "mean" else 1
        if self.motion_frames < least:
            yield f"{path}.join={self.join} needs {path}.motion_frames={least} or more: windows must share a latent"
