"""A phase's frozen encoders in every step, against a cache that `xdub encode` computes once: FLOPs, bytes and dollars.

A cache saves the codec and the audio encoder in every visit of a window, and costs one pass over all windows of its
grid, and storage. The counts are those of the paper's hours, in clips of ``video.clip_frames`` frames or of the lengths
in the manifests of ``--data``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xdub.config import Recipe, inpaints
from xdub.data.windows import window_starts
from xdub.geometry import FPS, SAMPLES_PER_FRAME, SOUND_MARGIN
from xdub.plan.codec_cost import encode_flops
from xdub.plan.flops import ENCODED, SPEECH, compute_seconds, encoder_parts
from xdub.plan.gpus import Gpu
from xdub.plan.shapes import shapes
from xdub.plan.speech_cost import speech_flops
from xdub.plan.storage import CLIP_HOURS, PAIR_HOURS
from xdub.precision import number_bytes

STORAGE_PRICE = 0.023
"""ASSUMPTION: US dollars for a gigabyte and month in an object store."""
MONTH_HOURS = 730.0
"""Hours of a month. A cache is kept for whole months."""


@dataclass(frozen=True, kw_only=True)
class LatentPlan:
    """The cost of a phase's latents and speech features in both ways."""

    cached: bool
    """True if the recipe reads a cache; the phase's plan is then without its encoders."""
    stride: int
    """Grid of the windows of the cache: the recipe's, or a window's length where the recipe draws from every frame."""
    shared_by: tuple[str, ...]
    """Phases that read the same cache, this one included."""
    windows: float
    """Windows of the cache."""
    visits: float
    """Number of times that the steps of this phase read a window."""
    cache_bytes: float
    """Bytes of the cache."""
    sample_bytes: float
    """Bytes that a reader delivers for one sample."""
    encode_flops: float
    """FLOPs to encode the cache once."""
    encode_gpu_hours: float
    """GPU hours to encode the cache once, for all phases that share it."""
    live_gpu_hours: float
    """GPU hours of the encoders in all steps of this phase without a cache."""
    shared_live_gpu_hours: float
    """The same of all phases that share the cache."""
    storage_cost: float
    """US dollars to store the cache while its phases train."""
    saving: float
    """US dollars that the cache saves over all phases that share it; negative if it costs more."""

    @property
    def cheaper(self) -> str:
        """``cached`` or ``live``."""
        return "cached" if self.saving > 0 else "live"


def cache_stride(recipe: Recipe, phase: str) -> int:
    """Return the grid of a phase's cache, see `LatentPlan.stride`."""
    train = recipe.for_phase(phase)
    if train.latents == "cached" or train.window_stride > 1:
        return train.window_stride
    return recipe.phase(phase).window


def window_bytes(recipe: Recipe, phase: str) -> tuple[float, float]:
    """Return the bytes of one window in the cache, and of one reference frame (0 in a phase that edits)."""
    sizes, width = shapes(recipe, phase), number_bytes(recipe.train.precision)
    frame = recipe.codec.channels * sizes.side**2 * width
    # Target, and its masked twin or V'.
    latents = 2 * sizes.target * frame
    speech = sizes.audio * recipe.audio.dim * width
    masks = 2 * sizes.target * sizes.side**2 / 8
    if inpaints(phase):
        return latents + speech + masks, frame
    sound = (sizes.frames + 2 * SOUND_MARGIN) * SAMPLES_PER_FRAME
    return latents + speech + masks + 4.0 * (sound + sizes.frames * 68 * 2), 0.0


def plan_latents(
    recipe: Recipe,
    phase: str,
    gpu: Gpu,
    *,
    efficiency: float,
    price: float,
    hours: float,
    folders: Sequence[str | Path] = (),
) -> LatentPlan:
    """Compare a cache with encoding in every step.

    Args:
        price: US dollars for one GPU and hour.
        hours: duration of the phase, during which the cache is stored.
        folders: data sets whose clip lengths replace the recipe's.
    """
    stride = cache_stride(recipe, phase)
    windows, references = _entries(recipe, phase, stride, folders)
    per_window, per_reference = window_bytes(recipe, phase)
    parts = _cache_flops(recipe, phase, windows, references)
    shared = [name for name in recipe.phase_names if _same_cache(recipe, name, phase)]
    train = recipe.for_phase(phase)

    def gpu_hours(flops: dict[str, float]) -> float:
        return compute_seconds(flops, recipe.train.precision, gpu) / efficiency / 3600

    live = {name: gpu_hours(_live_flops(recipe, name)) for name in shared}
    encoded, stored = gpu_hours(parts), windows * per_window + references * per_reference
    storage_cost = stored / 1e9 * STORAGE_PRICE * max(1, math.ceil(hours * len(shared) / MONTH_HOURS))
    return LatentPlan(
        cached=train.latents == "cached",
        stride=stride,
        shared_by=tuple(shared),
        windows=windows,
        visits=train.steps * train.global_batch / windows if windows else 0.0,
        cache_bytes=stored,
        sample_bytes=per_window + per_reference,
        encode_flops=sum(parts.values()),
        encode_gpu_hours=encoded,
        live_gpu_hours=live[phase],
        shared_live_gpu_hours=sum(live.values()),
        storage_cost=storage_cost,
        saving=(sum(live.values()) - encoded) * price - storage_cost,
    )


def _entries(recipe: Recipe, phase: str, stride: int, folders: Sequence[str | Path]) -> tuple[float, float]:
    """Return the windows and reference frames of the paper's hours.

    A clip has the ``masks.references`` frames of another segment that its data set records, else those of the grid.
    """
    clips = [(recipe.video.clip_frames, recipe.masks.references)]
    if folders:
        from xdub.data.manifest import read_manifest

        clips = []
        for manifest in map(read_manifest, folders):
            stored = (manifest.recipe or {}).get("masks", {}).get("references", 0)
            clips += [(int(count), stored) for count in manifest.num_frames]
    window = recipe.phase(phase).window
    frames = max(1, sum(count for count, _ in clips))
    per_frame = sum(len(window_starts(count, window, stride)) for count, _ in clips) / frames
    references = sum(stored or -(-count // stride) for count, stored in clips if count >= window) / frames
    total = (CLIP_HOURS if inpaints(phase) else PAIR_HOURS) * 3600 * FPS
    return total * per_frame, total * references if inpaints(phase) else 0.0


def _cache_flops(recipe: Recipe, phase: str, windows: float, references: float) -> dict[str, float]:
    """Return the FLOPs to encode all windows and reference frames once."""
    window = recipe.phase(phase).window
    codec = 2 * windows * encode_flops(recipe, window) + references * encode_flops(recipe, 1)
    return {ENCODED: codec, SPEECH: windows * speech_flops(recipe, window)}


def _live_flops(recipe: Recipe, phase: str) -> dict[str, float]:
    """Return the FLOPs of the encoders in all steps of a phase that encodes its samples."""
    steps = recipe.for_phase(phase).steps
    return {name: steps * flops for name, flops in encoder_parts(recipe, phase).items()}


def _same_cache(recipe: Recipe, phase: str, other: str) -> bool:
    """Return whether two phases read the same entries (`xdub.data.latent_cache.key`)."""
    return inpaints(phase) == inpaints(other) and (
        recipe.phase(phase).window == recipe.phase(other).window
        and cache_stride(recipe, phase) == cache_stride(recipe, other)
    )
