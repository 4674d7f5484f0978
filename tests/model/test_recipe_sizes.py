"""Networks of every shipped recipe and phase, built without weights: their shapes fit from end to end."""

from __future__ import annotations

import pytest
import torch

from xdub.config import load_recipe, shipped_recipes
from xdub.model.build import build_backbone
from xdub.model.lora import adapt


@pytest.mark.parametrize(
    ("name", "phase"),
    # Variants for small GPUs have the networks of their bases.
    [
        (name, phase)
        for name in shipped_recipes()
        for phase in load_recipe(name).phase_names
        if not name.endswith("-24gb")
    ],
)
def test_a_recipes_network_accepts_batches_of_the_data_stream(name, phase):
    """Run all blocks on the meta device, with the true number of tokens and the recipe's micro batch."""
    recipe = load_recipe(name)
    batch, frames = recipe.for_phase(phase).micro_batch, recipe.phase(phase).window
    geometry = recipe.codec.geometry
    f, side, channels = geometry.latent_frames(frames), recipe.video.size // geometry.space, geometry.channels
    with torch.device("meta"):
        model = build_backbone(recipe, phase)
        adapt(model, recipe, phase)
        z = torch.empty(batch, channels, f, side, side)
        reference = z[:, :, :1] if phase == "generator" else z
        conditions = {"z_mask": z} if phase == "generator" else {}
        t, audio = torch.empty(batch), torch.empty(batch, recipe.speech.count(frames), recipe.audio.dim)
        starts = torch.empty(f, dtype=torch.int64)
    shapes = []
    model.blocks[-1].register_forward_hook(lambda _, arguments, out: shapes.append(out.shape))
    with torch.no_grad():
        v_hat = model(z, t, reference, audio, starts, **conditions)
    assert v_hat.shape == z.shape
    tokens = shapes[0][1] * shapes[0][2]
    expected = {
        ("xdub-1b", "generator"): 8_192,
        ("xdub-1b", "editor"): 40_960,
        ("small", "generator"): 8 * 256,
        ("small", "editor"): 24 * 256,
        ("tiny", "generator"): 8 * 16,
        ("tiny", "editor"): 14 * 16,
        ("mini", "generator"): 8 * 16,
        ("mini", "editor"): 14 * 16,
        ("mini-wan", "generator"): 8 * 4,
        ("mini-wan", "editor"): 14 * 4,
        ("wan-1.3b", "generator"): 8_192,
        ("wan-1.3b", "editor"): 40_960,
        ("wan-5b", "generator"): 2_048,
        ("wan-5b", "editor"): 10_240,
        ("xdub-public-lora", "editor"): 10_240,
        ("tbdub-lora", "editor"): 10_240,
    }
    assert tokens == expected[name, phase if phase == "generator" else "editor"]


def test_the_papers_model_has_about_a_billion_parameters():
    with torch.device("meta"):
        model = build_backbone(load_recipe("xdub-1b"), "editor")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.0e9, rel=0.1)
