"""One block of xdub-1b at the paper's width on two CPU cores: a short window, one real optimizer step."""

from __future__ import annotations

import torch

from xdub.config import load_recipe
from xdub.model.codec import load_codec
from xdub.plan.network import count_parameters
from xdub.train.context import LocalContext
from xdub.train.engine import Engine
from xdub.train.networks import build_model
from xdub.train.phases import phase_loss
from xdub.train.phases.common import PhaseContext

FRAMES, SIDE = 5, 32
SMALL = (
    "model.num_layers=1", f"video.size={SIDE}", f"phases.editor.window={FRAMES}", "phases.editor.motion_frames=1",
    "train.workers=1",
    "train.global_batch=1", "train.micro_batch=1", "train.warmup=0", "train.lr=1e-4", "train.zero_stage=0",
    "train.precision=fp32",  # bf16 on a CPU without units for it takes a minute
    # random pictures need no codec of faces, and the backbone depends on the codec's channels only
    "codec.kind=linear", "codec.channels=48",
)  # fmt: skip


def test_one_block_of_the_papers_model_takes_a_real_step():
    recipe = load_recipe("xdub-1b", SMALL)
    codec, train = load_codec(recipe.codec), recipe.for_phase("editor")
    assert train.activation_checkpointing == "attention"
    model = build_model(recipe, "editor", codec, base=None, init_from=None)
    assert model.blocks[0].attention_3d.qkv.weight.shape == (3 * 1536, 1536)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(recipe, "editor").trained
    engine = Engine.build(model, train, device=LocalContext().device, world_size=1)
    before = model.proj_out.weight.detach().clone()

    context = PhaseContext(phase=recipe.phase("editor"), seed=0, codec=codec)
    terms = phase_loss("editor")(engine.model, batch(recipe, codec, 0), context)
    engine.backward(terms.total, last=True)
    engine.step()
    assert torch.isfinite(terms.total)
    assert engine.grad_norm > 0
    assert not torch.equal(before, model.proj_out.weight)


def batch(recipe, codec, seed: int) -> dict:
    """Return a batch of one random pair of videos, encoded by the codec."""
    draw = torch.Generator().manual_seed(seed)
    videos = torch.rand(2, 3, FRAMES, SIDE, SIDE, generator=draw) * 2 - 1
    geometry = codec.geometry
    f, side = geometry.latent_frames(FRAMES), geometry.latent_side(SIDE)
    z = codec.encode(videos)
    mask = torch.ones(1, 1, f, side, side)
    return {
        "z0": z[:1],
        "z_ref": z[1:],
        "audio": torch.randn(1, 2 * FRAMES + 8, recipe.audio.dim, generator=draw),
        "starts": torch.from_numpy(recipe.speech.starts(f)),
        "face_mask": mask,
        "lip_mask": mask,
        "epochs": torch.zeros(1, dtype=torch.int64),
        "sample_id": [str(seed)],
    }
