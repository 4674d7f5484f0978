"""Bytes that the readers deliver and that the disks hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe, inpaints, phase_facts
from xdub.geometry import FPS
from xdub.plan.network import Parameters

BITS_PER_PIXEL = 3.0
"""ASSUMPTION: near-lossless H.264 (crf 6, full chroma) of a filmed face. `--data` replaces it."""
MASK_BITS_PER_PIXEL = 0.1
"""ASSUMPTION: three masks, compressed."""
OTHER_BYTES = 640 * 4 + 68 * 2 * 4 + 4
"""Bytes of one frame's fp32 audio at 16 kHz, landmarks and mouth opening."""

CLIP_HOURS, PAIR_HOURS = 600, 400
"""Hours of the paper's data (B.6): its clips, and the pairs that pass its filters."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Bytes and hours of a phase's data."""

    record_bytes: float
    """Bytes of one clip of ``video.clip_frames`` frames."""
    frame_bytes: float
    """Bytes of one frame of a clip."""
    source: str
    """Source of the figure: an assumption, or a data set's manifest."""
    hours_seen: float
    """Hours of video over all steps; every epoch counts again."""
    paper_hours: float
    """Hours of the paper's data for this phase."""
    paper_epochs: float | None
    """Epochs of the paper; None for a phase that the paper does not have."""
    storage: float
    """Bytes of the paper's hours."""
    checkpoint: float
    """Bytes of one checkpoint."""
    checkpoints: float
    """Bytes of all checkpoints that are kept."""

    @property
    def epochs(self) -> float:
        """Number of times that the recipe's steps see the paper's hours."""
        return self.hours_seen / self.paper_hours


def data(recipe: Recipe, phase: str, count: Parameters, folders: Sequence[str | Path] = ()) -> Data:
    """Return the sizes of a phase's data; manifests of the data sets ``folders`` replace the assumed record size."""
    train = recipe.for_phase(phase)
    per_frame, source = _frame_bytes(recipe, phase, folders)
    hours = CLIP_HOURS if inpaints(phase) else PAIR_HOURS
    checkpoint = checkpoint_bytes(recipe, phase, count)
    return Data(
        record_bytes=per_frame * recipe.video.clip_frames,
        frame_bytes=per_frame,
        source=source,
        hours_seen=train.steps * train.global_batch * recipe.phase(phase).window / FPS / 3600,
        paper_hours=hours,
        paper_epochs=phase_facts(phase).epochs,
        storage=per_frame * hours * 3600 * FPS,
        checkpoint=checkpoint,
        checkpoints=checkpoint * train.keep_checkpoints,
    )


def checkpoint_bytes(recipe: Recipe, phase: str, count: Parameters) -> float:
    """Return a checkpoint's bytes: fp32 masters, moments and average of trained weights (`xdub.train.state.pieces`)."""
    return count.trained * (12 + (4 if recipe.for_phase(phase).ema else 0))


def _frame_bytes(recipe: Recipe, phase: str, folders: Sequence[str | Path]) -> tuple[float, str]:
    if folders:
        from xdub.data.manifest import read_manifest

        manifests = [read_manifest(folder) for folder in folders]
        stored = sum(manifest.bytes for manifest in manifests)
        frames = sum(manifest.frames for manifest in manifests)
        return stored / max(1, frames), "manifest"
    videos = 1 if inpaints(phase) else 2
    bits = (BITS_PER_PIXEL * videos + MASK_BITS_PER_PIXEL) * recipe.video.size**2
    return bits / 8 + OTHER_BYTES, f"{BITS_PER_PIXEL:g} bit/px assumed"
