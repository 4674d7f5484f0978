"""What the readers must deliver and the disks must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe, inpaints, phase_facts
from xdub.geometry import FPS
from xdub.plan.parameters import parameters

BITS_PER_PIXEL = 3.0
"""ASSUMPTION: near-lossless H.264 (crf 6, full chroma) of a filmed face. `--data` replaces it."""
MASK_BITS_PER_PIXEL = 0.1
"""ASSUMPTION: three masks, compressed."""
OTHER_BYTES = 640 * 4 + 68 * 2 * 4 + 4
"""Of one frame: fp32 audio at 16 kHz, landmarks, opening."""

CLIP_HOURS, PAIR_HOURS = 600, 400
"""Of the paper's data (B.6): its clips, and what the filters leave of their pairs."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Bytes and hours of a phase's data."""

    record_bytes: float
    """Of one clip of ``video.clip_frames`` frames."""
    frame_bytes: float
    source: str
    """Where the figure comes from."""
    hours_seen: float
    """Of video, over all steps, counted again every epoch."""
    paper_hours: float
    paper_epochs: float | None
    """None: not a phase of the paper."""
    storage: float
    """Bytes of the paper's hours."""
    checkpoint: float
    """Bytes of one checkpoint."""
    checkpoints: float
    """Bytes of all that are kept."""

    @property
    def epochs(self) -> float:
        """Of the paper's hours, in the recipe's steps."""
        return self.hours_seen / self.paper_hours


def data(recipe: Recipe, phase: str, folders: Sequence[Path] = ()) -> Data:
    """The phase's data; ``folders`` are data sets whose manifests give the true size of a record."""
    train = recipe.for_phase(phase)
    per_frame, source = _frame_bytes(recipe, phase, folders)
    hours = CLIP_HOURS if inpaints(phase) else PAIR_HOURS
    checkpoint = checkpoint_bytes(recipe, phase)
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


def checkpoint_bytes(recipe: Recipe, phase: str) -> float:
    """fp32 masters, two moments and the average of what is trained (`xdub.train.state.pieces`)."""
    return parameters(recipe, phase).trained * (12 + (4 if recipe.for_phase(phase).ema else 0))


def _frame_bytes(recipe: Recipe, phase: str, folders: Sequence[Path]) -> tuple[float, str]:
    if folders:
        from xdub.data.manifest import read_manifest

        manifests = [read_manifest(folder) for folder in folders]
        stored = sum(shard.bytes for manifest in manifests for shard in manifest.shards)
        frames = sum(sum(manifest.num_frames) for manifest in manifests)
        return stored / max(1, frames), "manifest"
    videos = 1 if inpaints(phase) else 2
    bits = (BITS_PER_PIXEL * videos + MASK_BITS_PER_PIXEL) * recipe.video.size**2
    return bits / 8 + OTHER_BYTES, f"{BITS_PER_PIXEL:g} bit/px assumed"
