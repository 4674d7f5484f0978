"""Cost of losses on pixels in the lip and texture phases (Eq. 11 to 13): decoding, and the frozen networks."""

from __future__ import annotations

from xdub.config import Recipe, phase_facts
from xdub.plan.codec_cost import decode_backward_flops, decode_bytes, decode_flops

FRAME_STRIDE = 4
"""The texture losses use every fourth frame."""
FILTER_STRIDE = 6
"""The pair filters read every sixth frame (`xdub.pairs.filters.judge`)."""
NETWORKS = {
    "tiny-sync": (0.4e6, 0.02e9),
    "syncnet": (0.4e6, 0.02e9),
    "mobilefacenet": (1.3e6, 0.47e9),
    "dlib": (5.6e6, 0.6e9),
    "arcface": (65e6, 24e9),
    "tiny-features": (0.0, 0.05e9),
    "clip": (304e6, 162e9),
}
"""Parameters, and FLOPs of one frame forwards. ASSUMPTIONS for files of the user: ArcFace r100, CLIP ViT-L/14."""


def _used(recipe: Recipe, phase: str) -> dict[str, tuple[float, float]]:
    """Return for each role the parameters of its network, and the FLOPs of one frame."""
    perception = recipe.perception
    files = {
        "sync": "syncnet" if perception.sync == "syncnet" else "tiny-sync",
        "identity": perception.identity,
        "features": "clip" if perception.features == "clip" else "tiny-features",
    }
    return {role: NETWORKS[files[role]] for role in phase_facts(phase).networks}


def loss_network_bytes(recipe: Recipe, phase: str) -> float:
    """Return the bytes of the networks' fp32 weights."""
    return 4 * sum(parameters for parameters, _ in _used(recipe, phase).values())


def pixel_loss_bytes(recipe: Recipe, phase: str, micro_batch: int) -> float:
    """Return the peak bytes of decoding for the losses; every sample of a texture micro batch may be silent."""
    if not phase_facts(phase).decodes:
        return 0.0
    return decode_bytes(recipe, recipe.phase(phase).decode_latents, micro_batch)


def mean_slice_start(recipe: Recipe, phase: str) -> float:
    """Return the mean number of latents before the slice that pixel losses decode, see `train/phases/common.py`."""
    cfg, geometry = recipe.phase(phase), recipe.codec.geometry
    last = max(0, geometry.latent_frames(cfg.window) - cfg.decode_latents)
    earliest = min(geometry.latent_frames(cfg.motion_frames) - 1, last)
    return (last + cfg.motion_prob * earliest) / 2


def pixel_loss_flops(recipe: Recipe, phase: str) -> float:
    """Return the codec's expected FLOPs of one sample's losses: decoding, and the backward pass to the latents."""
    facts, latents = phase_facts(phase), recipe.phase(phase).decode_latents
    if not facts.decodes:
        return 0.0
    # The decoder also runs over the latents before the slice.
    forward = decode_flops(recipe, mean_slice_start(recipe, phase) + latents)
    total = forward + decode_backward_flops(recipe, latents)
    if {"identity", "features"} & set(facts.networks):
        # The reference is decoded, too.
        total += forward
    return total * _share(recipe, phase)


def loss_network_flops(recipe: Recipe, phase: str) -> float:
    """Return the expected FLOPs of one sample in the networks of its losses, forwards and backwards."""
    if not phase_facts(phase).decodes:
        return 0.0
    frames = recipe.codec.geometry.frames(recipe.phase(phase).decode_latents)
    scored, total = -(-frames // FRAME_STRIDE), 0.0
    for role, (_, flops) in _used(recipe, phase).items():
        # The video forwards and backwards, and the reference forwards.
        total += 2 * frames * flops if role == "sync" else 3 * scored * flops
    return total * _share(recipe, phase)


def filter_flops(recipe: Recipe, frames: int) -> float:
    """Return the FLOPs of the pair filters on one clip of ``frames`` frames: identity of V and V'.

    The face tracker runs on the CPU.
    """
    return 2 * -(-frames // FILTER_STRIDE) * NETWORKS[recipe.perception.identity][1]


def filter_bytes(recipe: Recipe) -> float:
    """Return the bytes of the fp32 weights of the pair filters' networks on the GPU."""
    return 4 * NETWORKS[recipe.perception.identity][0]


def _share(recipe: Recipe, phase: str) -> float:
    """Return the share of the samples whose losses are computed on pixels."""
    return recipe.phase(phase).silent_prob if phase_facts(phase).silences else 1.0
