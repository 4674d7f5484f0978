"""A run of a small Wan whose adapter and additions were trained for 20 steps, as a training leaves it on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from xdub.config import Recipe, load_recipe
from xdub.files.atomic import write_json
from xdub.files.run_folder import RunFolder
from xdub.geometry import CodecGeometry
from xdub.miniature.networks import write_embedded_prompt
from xdub.miniature.sizes import Sizes
from xdub.model import save_backbone
from xdub.model.lora import TUNED, file_name
from xdub.model.testing import random_codec
from xdub.model.wan.config import WanConfig
from xdub.model.wan.network import WanDiT
from xdub.plan.rehearsal import inputs
from xdub.train.networks import build_model
from xdub.train.state.export import write_export

WIDTH, HEADS, LAYERS, TEXT, CHANNELS = 48, 2, 2, 16, 48
STEPS = 20
TARGETS = "[self_attn.q,self_attn.v,self_attn.o,cross_attn.k,ffn.0,ffn.2]"


@dataclass(frozen=True)
class TunedRun:
    """A run's folder, and the network with its adapter as the training had it."""

    folder: Path
    recipe: Recipe
    model: WanDiT
    base: Path


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> TunedRun:
    """Return a run whose editor is a plain Wan with an adapter and a speech branch, both trained for 20 steps."""
    folder = tmp_path_factory.mktemp("tuned")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = WanConfig(
            kind="wan",
            hidden_size=WIDTH,
            num_heads=HEADS,
            num_layers=LAYERS,
            ffn_dim=100,
            text_dim=TEXT,
            order="reference_first",
            geometry=CodecGeometry(channels=CHANNELS, time=4, space=8),
        )
        save_backbone(_perturbed(WanDiT(config)), folder / "base", "original")
        write_embedded_prompt(folder / "prompt.safetensors", Sizes(text=TEXT))
        settings = [
            f"model.hidden_size={WIDTH}",
            f"model.num_heads={HEADS}",
            f"model.num_layers={LAYERS}",
            f"model.text_dim={TEXT}",
            f"model.prompt={folder / 'prompt.safetensors'}",
            f"model.base={folder / 'base'}",
            f"lora.targets={TARGETS}",
        ]
        settings += [
            "model.kind=wan",
            "model.ffn_dim=100",
            "model.order=reference_first",
            "model.linear_skip=false",
        ]
        settings += ["lora.rank=4", "lora.alpha=6", "train.tune=adapter", "train.upload_to=/private/bucket"]
        recipe = load_recipe("tiny", settings)
        model = build_model(recipe, "editor", random_codec(CHANNELS), base=None, init_from=None)
        assert isinstance(model, WanDiT)
        trained = train(model, recipe)
    run = RunFolder(folder / "run")
    write_export(
        run.phase("editor").export,
        {file_name(name, TUNED): value.detach() for name, value in trained.items()},
        {"kind": "model", "phase": "editor", "step": STEPS, "averaged": True, "recipe": recipe.to_dict()},
    )
    write_json(
        run.phase("editor").data_summary, [{"kind": "pairs", "digest": "0123456789abcdef00", "rows": 7}]
    )
    return TunedRun(folder=run.path, recipe=recipe, model=model.eval(), base=folder / "base")


def train(model: WanDiT, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Train the adapter and the additions on one random batch; return the trained parameters."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    batch = inputs(recipe, "editor", 2, "cpu")
    batch |= {name: torch.randn(batch[name].shape) for name in ("z_t", "z_ref", "audio")}
    target, losses = torch.randn(batch["z_t"].shape), []
    for _ in range(STEPS):
        loss = (model(**batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    return trained


def _perturbed(model: WanDiT) -> WanDiT:
    """Return the network with noise on every parameter, because fresh norms and tables are trivial."""
    for value in model.parameters():
        value.data.add_(torch.randn_like(value) * 0.05)
    return model
