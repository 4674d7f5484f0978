"""The pixel losses of the lip and texture phases (Eq. 11 to 13): decoding, and the frozen networks that look at it."""

from __future__ import annotations

from xdub.config import Recipe
from xdub.model.lora import expert_of
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


def _used(recipe: Recipe, phase: str) -> list[tuple[float, float]]:
    expert, perception = expert_of(phase), recipe.perception
    if expert == "lip":
        return [NETWORKS["syncnet" if perception.sync == "syncnet" else "tiny-sync"]]
    if expert == "texture":
        return [
            NETWORKS[perception.identity],
            NETWORKS["clip" if perception.features == "clip" else "tiny-features"],
        ]
    return []


def loss_network_bytes(recipe: Recipe, phase: str) -> float:
    """Bytes of their fp32 weights."""
    return 4 * sum(parameters for parameters, _ in _used(recipe, phase))


def pixel_loss_bytes(recipe: Recipe, phase: str, micro_batch: int) -> float:
    """Peak bytes of decoding for the losses; every sample of a texture micro batch may be a silent one."""
    if expert_of(phase) is None:
        return 0.0
    return micro_batch * decode_bytes(recipe, recipe.phase(phase).decode_latents)


def pixel_loss_flops(recipe: Recipe, phase: str) -> float:
    """Expected FLOP of one sample: decode, look, and the way back to the latents."""
    expert, cfg = expert_of(phase), recipe.phase(phase)
    if expert is None:
        return 0.0
    latents, networks = cfg.decode_latents, _used(recipe, phase)
    frames = 1 + 4 * (latents - 1)
    both_ways = decode_flops(recipe, latents) + decode_backward_flops(recipe, latents)
    if expert == "lip":
        return both_ways + sum(2 * frames * flops for _, flops in networks)
    seen = -(-frames // FRAME_STRIDE)
    look = sum(3 * seen * flops for _, flops in networks)  # the video both ways, the reference forwards
    return cfg.silent_prob * (both_ways + decode_flops(recipe, latents) + look)
