"""Losses on pixels, as the lip and texture phases have them (Eq. 11 to 13): decoding, and the frozen networks that look
at it."""

from __future__ import annotations

from xdub.config import Recipe, phase_facts
from xdub.plan.codec_cost import decode_backward_flops, decode_bytes, decode_flops

FRAME_STRIDE = 4
"""The texture losses look at every fourth frame."""
NETWORKS = {
    "tiny-sync": (0.4e6, 0.02e9),
    "syncnet": (0.4e6, 0.02e9),
    "dlib": (5.6e6, 0.6e9),
    "arcface": (65e6, 24e9),
    "tiny-features": (0.0, 0.05e9),
    "clip": (304e6, 162e9),
}
"""Parameters and FLOP a frame, forwards. ASSUMPTIONS where the user brings the file: ArcFace r100, CLIP ViT-L/14."""


def _used(recipe: Recipe, phase: str) -> dict[str, tuple[float, float]]:
    """Role -> its network's parameters and FLOP a frame."""
    perception = recipe.perception
    files = {
        "sync": "syncnet" if perception.sync == "syncnet" else "tiny-sync",
        "identity": perception.identity,
        "features": "clip" if perception.features == "clip" else "tiny-features",
    }
    return {role: NETWORKS[files[role]] for role in phase_facts(phase).networks}


def loss_network_bytes(recipe: Recipe, phase: str) -> float:
    """Bytes of their fp32 weights."""
    return 4 * sum(parameters for parameters, _ in _used(recipe, phase).values())


def pixel_loss_bytes(recipe: Recipe, phase: str, micro_batch: int) -> float:
    """Peak bytes of decoding for the losses; every sample of a texture micro batch may be a silent one."""
    if not phase_facts(phase).decodes:
        return 0.0
    return micro_batch * decode_bytes(recipe, recipe.phase(phase).decode_latents)


def pixel_loss_flops(recipe: Recipe, phase: str) -> float:
    """Expected FLOP of one sample: decode, look, and the way back to the latents."""
    facts, cfg = phase_facts(phase), recipe.phase(phase)
    if not facts.decodes:
        return 0.0
    latents = cfg.decode_latents
    frames = 1 + 4 * (latents - 1)
    seen = -(-frames // FRAME_STRIDE)
    total = decode_flops(recipe, latents) + decode_backward_flops(recipe, latents)
    for role, (_, flops) in _used(recipe, phase).items():
        # Against the reference's picture: the video both ways, the reference forwards.
        total += 2 * frames * flops if role == "sync" else 3 * seen * flops
    if {"identity", "features"} & set(facts.networks):
        total += decode_flops(recipe, latents)  # the reference
    return total * (cfg.silent_prob if facts.silences else 1.0)
