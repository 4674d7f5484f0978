"""The recipe of an examination: all kinds, widths and precisions of the recipe itself, on two blocks for one step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xdub.config import EXPERTS, RANDOM, Recipe, recipe_from_dict
from xdub.diffusion import euler_timesteps
from xdub.dub.window_sampler import expert_at

BLOCKS = 2
"""Blocks of the backbone."""
STAND_IN = "open_weights.safetensors"
"""Name of the file of random weights."""
LEAST_SIDE = 64
"""Smallest side of the pictures on a CPU, px."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A recipe to examine, and the smaller one that every stage runs."""

    recipe: Recipe
    """The recipe itself."""
    small: Recipe
    device: torch.device
    stand_in: Path | None
    """File for random weights that replace the recipe's open weights; None where the recipe's own are loaded."""
    frames: int
    """Frames of every clip: a window of each phase, and the motion frames of a second segment."""


def plan_rehearsal(
    recipe: Recipe, device: torch.device, folder: Path, *, size: int | None = None, frames: int | None = None
) -> Rehearsal:
    """Choose the sizes of a rehearsal, whose temporary files are in ``folder``.

    A GPU runs the recipe's own pictures and windows by default. A CPU runs pictures of about 64 px and the shortest
    window from which a loss can decode a slice that does not begin with the first latent.
    """
    on_gpu = device.type == "cuda"
    geometry, patch = recipe.codec.geometry, max(recipe.model.patch[1:])
    if size is None:
        unit = geometry.space * patch
        size = recipe.video.size if on_gpu else -(-LEAST_SIDE // unit) * unit
    if frames is None and not on_gpu:
        frames = geometry.frames(1 + max(recipe.phase(name).decode_latents for name in recipe.phase_names))
    if frames is not None:
        # A window is longer than its motion frames.
        parts = (recipe.pairs, recipe.dub, *recipe.phases.values())
        frames = max(frames, *(part.motion_frames + geometry.time for part in parts))
    raw = recipe.to_dict()
    raw["video"]["size"] = size
    raw["model"]["num_layers"] = min(BLOCKS, recipe.model.num_layers)
    raw["train"] |= _one_step(recipe.train.sample_every)
    stand_in = None
    shallow = raw["model"]["num_layers"] < recipe.model.num_layers
    if recipe.model.kind == "wan" and shallow and recipe.model.base != RANDOM:
        # Open weights have all layers, and an adapter needs open weights.
        stand_in = folder / STAND_IN
        raw["model"]["base"] = str(stand_in)
    for name, phase in raw["phases"].items():
        train = recipe.for_phase(name)
        micro = train.micro_batch if on_gpu else 1
        # Gradients of two micro batches are summed.
        phase |= _one_step(train.sample_every) | {"micro_batch": micro, "global_batch": 2 * micro}
        phase["window"] = _shorter(phase["window"], frames)
        # The accuracy of a SyncNet cannot be measured on drawn clips.
        phase["sync_accuracy"] = 0.0
        # Losses of silent samples must be computed.
        phase["silent_prob"] = 1.0 if phase["silent_prob"] else 0.0
    _shrink_syncnet(raw["syncnet"], recipe, frames, on_gpu)
    pairs, dub = raw["pairs"], raw["dub"]
    pairs |= {
        "sampler_steps": min(2, pairs["sampler_steps"]),
        "batch": min(2, pairs["batch"]),
        "render_twins": 0.0,
    }
    pairs["segment_frames"] = _shorter(pairs["segment_frames"], frames)
    dub["window"] = _shorter(dub["window"], frames)
    dub["sampler_steps"] = least_steps(recipe)
    windows = [phase["window"] for phase in raw["phases"].values()] + [
        pairs["segment_frames"] + geometry.time
    ]
    raw["video"]["clip_frames"] = max(windows)
    return Rehearsal(
        recipe=recipe,
        small=recipe_from_dict(raw),
        device=device,
        stand_in=stand_in,
        frames=max(windows),
    )


def _shrink_syncnet(section: dict[str, Any], recipe: Recipe, frames: int | None, on_gpu: bool) -> None:
    """Reduce the section `syncnet` to one step on one of two clips; the other is held out for the accuracy."""
    train = recipe.for_phase("syncnet")
    clips = min(2, recipe.syncnet.clips)
    micro = train.micro_batch if on_gpu else clips
    section |= _one_step(train.sample_every) | {"micro_batch": micro, "global_batch": micro}
    section |= {"clips": clips, "held_out": 0.5 if recipe.syncnet.held_out else 0.0}
    # The codec must be run.
    section["codec_share"] = 1.0 if recipe.syncnet.codec_share else 0.0
    section["window"] = _shorter(section["window"], frames)


def _shorter(window: int, frames: int | None) -> int:
    return window if frames is None else min(window, frames)


def _one_step(sample_every: int) -> dict[str, Any]:
    """Return the train settings of a single step on one worker."""
    return {
        "steps": 1,
        "workers": 1,
        "sequence_parallel": 1,
        "min_workers": None,
        "resource": None,
        "upload_to": None,
        # The latents of the rehearsal are temporary.
        "latent_cache": None,
        "warmup": 0,
        "checkpoint_every": 1,
        "keep_checkpoints": 1,
        "log_every": 1,
        "sample_every": min(1, sample_every),
        "num_threads": torch.get_num_threads(),
    }


def experts_at(recipe: Recipe, steps: int) -> set[str]:
    """Return the experts that are on in at least one of a number of sampler steps."""
    bands = [(name, tuple(getattr(recipe.dub, f"{name}_band"))) for name in EXPERTS if name in recipe.phases]
    times = euler_timesteps(steps, recipe.dub.sampler_shift)[:-1].tolist()
    return {name for t in times if (name := expert_at(t, bands)) is not None}


def least_steps(recipe: Recipe) -> int:
    """Return the smallest number of sampler steps in which every expert that is ever on is on."""
    own = recipe.dub.sampler_steps
    enough = (n for n in range(min(2, own), own) if experts_at(recipe, n) == experts_at(recipe, own))
    return next(enough, own)
