"""Cost of losses on pixels in the lip and texture phases (Eq. 11 to 13): decoding, and the frozen networks."""

from __future__ import annotations

from xdub.config import Recipe, phase_facts
from xdub.plan.codec_cost import decode_backward_flops, decode_bytes, decode_flops

FRAME_STRIDE = 4
"""The texture losses use every fourth frame."""
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
    """Return the expected FLOPs of one sample: decoding, the networks, and the backward pass to the latents."""
    facts, cfg = phase_facts(phase), recipe.phase(phase)
    if not facts.decodes:
        return 0.0
    latents = cfg.decode_latents
    frames = recipe.codec.geometry.frames(latents)
    scored = -(-frames // FRAME_STRIDE)
    # The decoder also runs over the latents before the slice.
    forward = decode_flops(recipe, mean_slice_start(recipe, phase) + latents)
    total = forward + decode_backward_flops(recipe, latents)
    for role, (_, flops) in _used(recipe, phase).items():
        # The video forwards and backwards, and the reference forwards.
        total += 2 * frames * flops if role == "sync" else 3 * scored * flops
    if {"identity", "features"} & set(facts.networks):
        total += forward  # the reference
    return total * (cfg.silent_prob if facts.silences else 1.0)
