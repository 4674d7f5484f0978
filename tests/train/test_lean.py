"""Training with little memory: the same steps as without the options, and checkpoints that continue them."""

from __future__ import annotations

import pytest
import torch

from xdub.model.codec import load_codec
from xdub.model.frozen_base import StoredLinear
from xdub.plan.rehearsal import inputs
from xdub.train.context import LocalContext
from xdub.train.engine import Engine
from xdub.train.networks import build_model
from xdub.train.state.export import export


def build(recipe, phase: str = "lip") -> Engine:
    """Build the engine of one rank, with a network whose output is not zero."""
    model = build_model(recipe, phase, load_codec(recipe.codec), base=None, init_from=None)
    torch.nn.init.normal_(model.proj_out.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    return Engine.build(model, recipe.for_phase(phase), device=LocalContext().device)


def train(engine: Engine, recipe, steps: int, phase: str = "lip") -> list[float]:
    """Train on one random batch; return the losses."""
    generator, losses = torch.Generator().manual_seed(0), []
    batch = {
        name: torch.randn(value.shape, generator=generator) if name in ("z_t", "z_ref", "audio") else value
        for name, value in inputs(recipe, phase, 2, "cpu").items()
    }
    for _ in range(steps):
        loss = (engine.model(**batch) - batch["z_ref"]).pow(2).mean()
        engine.backward(loss, last=True)
        assert engine.step()
        losses.append(loss.item())
    return losses


def settings(**values: object) -> list[str]:
    """Return overrides of the train section for steps that change the loss."""
    values = {"warmup": 0, "lr": 0.02, "global_batch": 2, "ema": 0.9, **values}
    return [f"train.{name}={value}" for name, value in values.items()]


@pytest.mark.parametrize(
    ("storage", "stage", "precision"), [("int8", 0, "bf16"), ("fp8", 2, "bf16"), ("int8", 3, "fp32")]
)
def test_an_adapter_on_a_stored_base_trains_resumes_and_exports(small, tmp_path, storage, stage, precision):
    recipe = small(*settings(base_dtype=storage, zero_stage=stage, precision=precision))
    engine = build(recipe)
    base = {name: value.clone() for name, value in engine.model.named_buffers()}
    losses = train(engine, recipe, 4)
    assert losses[-1] < losses[0]
    engine.save(tmp_path)
    losses = train(engine, recipe, 2)
    again = build(recipe)
    again.load(tmp_path, 4)
    assert train(again, recipe, 2) == losses
    stored = [m for m in engine.model.modules() if isinstance(m, StoredLinear)]
    assert len(stored) == 2 * 12
    assert all(m.scale.dtype is torch.float32 and m.codes.itemsize == 1 for m in stored)
    assert all(torch.equal(value, base[name]) for name, value in engine.model.named_buffers())
    export(tmp_path / "export", engine, LocalContext(), recipe=recipe, phase="lip", step=6)
    from xdub.files.tensors import read_tensors

    names = read_tensors(tmp_path / "export" / "adapter.safetensors").keys()
    assert names and all(".lora_" in name for name in names)


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (0, "bf16"), (1, "bf16"), (3, "bf16")])
def test_eight_bit_moments_continue_to_the_bit_and_at_another_zero_stage(small, tmp_path, stage, precision):
    recipe = small(*settings(optimizer="adamw8bit", zero_stage=stage, precision=precision))
    engine = build(recipe)
    losses = train(engine, recipe, 4)
    assert losses[-1] < losses[0]
    engine.save(tmp_path)
    losses = train(engine, recipe, 3)
    again = build(recipe)
    again.load(tmp_path, 4)
    assert train(again, recipe, 3) == losses
    other = small(*settings(optimizer="adamw8bit", zero_stage=2, precision=precision))
    moved = build(other)
    moved.load(tmp_path, 4)
    assert train(moved, other, 3) == pytest.approx(losses, rel=0.02)
