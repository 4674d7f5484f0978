"""Training with little memory: the same steps as without the options, and checkpoints that continue them."""

from __future__ import annotations

import pytest
import torch

from xdub.config import load_recipe, shipped_recipes
from xdub.errors import UserError
from xdub.files.run_folder import ADAPTER_WEIGHTS
from xdub.files.tensors import read_tensors, write_tensors
from xdub.model.codec import load_codec
from xdub.model.frozen_base import StoredLinear
from xdub.model.lora import expert_state, file_name
from xdub.plan.rehearsal import LiveBytes, inputs
from xdub.train.context import LocalContext
from xdub.train.deepspeed_setup import deepspeed_config
from xdub.train.engine import Engine
from xdub.train.learners import learner_of
from xdub.train.networks import build_model
from xdub.train.state.export import export
from xdub.train.supervise.preflight import warn_bf16_sums


def build(recipe, phase: str = "lip") -> Engine:
    """Build the engine of one rank, with a network whose output is not zero."""
    model = build_model(recipe, phase, load_codec(recipe.codec), base=None, init_from=None)
    torch.nn.init.normal_(model.proj_out.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    return Engine.build(model, recipe.for_phase(phase), device=LocalContext().device)


def random_batch(
    recipe, generator: torch.Generator, size: int, phase: str = "lip"
) -> dict[str, torch.Tensor]:
    """Draw the arguments of the backbone for ``size`` samples."""
    return {
        name: torch.randn(value.shape, generator=generator) if name in ("z_t", "z_ref", "audio") else value
        for name, value in inputs(recipe, phase, size, "cpu").items()
    }


def train_accumulated(engine: Engine, recipe, steps: int) -> list[float]:
    """Train on random micro batches of one sample; return the losses and the norms of the gradients."""
    generator, values = torch.Generator().manual_seed(0), []
    count = engine.micro_batches
    for _ in range(steps):
        for index in range(count):
            batch = random_batch(recipe, generator, 1)
            loss = (engine.model(**batch) - batch["z_ref"]).pow(2).mean()
            engine.backward(loss, last=index == count - 1)
            values.append(loss.item())
        assert engine.step()
        values.append(engine.grad_norm)
    return values


def train(engine: Engine, recipe, steps: int, phase: str = "lip") -> list[float]:
    """Train on one random batch; return the losses."""
    losses, batch = [], random_batch(recipe, torch.Generator().manual_seed(0), 2, phase)
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


@pytest.mark.parametrize(("storage", "stage", "precision"), [("int8", 0, "bf16"), ("fp8", 2, "bf16")])
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
    export(tmp_path / "lip", engine, LocalContext(), recipe=recipe, phase="lip", step=6)
    names = read_tensors(tmp_path / "lip" / ADAPTER_WEIGHTS).keys()
    assert names and all(".lora_" in name for name in names)


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16")])
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


@pytest.mark.parametrize(("offload", "stage"), [("blocks", 0), ("optimizer", 3), ("optimizer+blocks", 2)])
def test_offloaded_tensors_change_no_bit_of_training(small, tmp_path, offload, stage):
    runs, options = [], {"zero_stage": stage, "precision": "bf16", "activation_checkpointing": "full"}
    for where in ("none", offload):
        recipe = small(*settings(offload=where, base_dtype="int8", optimizer="adamw8bit", **options))
        engine = build(recipe)
        losses = train(engine, recipe, 3)
        engine.save(tmp_path)
        losses += train(engine, recipe, 2)
        runs.append((losses, engine.trained_state(), engine.model.module.state_dict()))
    (plain, average, state), (ours, own_average, own_state) = runs
    assert plain == ours
    assert all(torch.equal(value, own_average[name]) for name, value in average.items())
    # ZeRO-3 keeps pieces in place of parameters.
    assert stage == 3 or all(torch.equal(value, own_state[name]) for name, value in state.items())
    again = build(recipe)
    again.load(tmp_path, 3)
    assert train(again, recipe, 2) == ours[3:]


@pytest.mark.parametrize(("stage", "optimizer"), [(1, "adamw"), (2, "adamw"), (2, "adamw8bit")])
def test_an_offloaded_optimizer_steps_on_the_same_sum_of_eight_micro_batches(small, stage, optimizer):
    options = {"zero_stage": stage, "precision": "bf16", "micro_batch": 1, "global_batch": 8}
    runs = []
    for where in ("none", "optimizer"):
        recipe = small(*settings(offload=where, optimizer=optimizer, base_dtype="int8", **options))
        engine = build(recipe)
        runs.append((train_accumulated(engine, recipe, 3), engine.trained_state(ema=False)))
    (plain, weights), (offloaded, own_weights) = runs
    assert plain == offloaded and len(set(plain)) == len(plain) == 3 * 9
    assert all(torch.equal(value, own_weights[name]) for name, value in weights.items())


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if "lora" in name or "-24gb" in name])
def test_an_adapter_recipe_sums_the_gradients_of_its_micro_batches_in_fp32(name):
    recipe = load_recipe(name)
    for phase in recipe.phase_names:
        config = deepspeed_config(recipe.for_phase(phase), recipe.train.workers, trained=10**8)
        assert config["gradient_accumulation_steps"] > 1
        assert config["data_types"] == {"grad_accum_dtype": "fp32"}
        # The buffer of a small adapter is as small as the adapter.
        assert config["zero_optimization"]["reduce_bucket_size"] == 10**8


@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_the_sum_of_micro_batches_keeps_what_bf16_would_round_away(small, offload):
    options = {"precision": "bf16", "micro_batch": 1, "global_batch": 8, "grad_clip": 0, "zero_stage": 2}
    recipe = small(*settings(offload=offload, **options))
    engine = build(recipe)
    parameter = next(p for p in engine.model.parameters() if p.requires_grad)
    for index in range(8):
        # Beside 256, bf16 rounds 1 away.
        engine.backward(parameter.sum() * (256.0 if index == 0 else 1.0), last=index == 7)
    assert engine.step()
    assert engine.grad_norm == pytest.approx((256 + 7) / 8 * parameter.numel() ** 0.5, rel=1e-5)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_bf16_phase_begins_with_the_fp32_values_of_its_adapter_and_of_their_average(small, tmp_path, stage):
    recipe = small(*settings(zero_stage=stage, precision="bf16"))
    codec, path = load_codec(recipe.codec), tmp_path / "lip.safetensors"
    fresh = expert_state(build_model(recipe, "lip", codec, base=None, init_from=None), "lip")
    write_tensors({name: torch.randn_like(value, dtype=torch.float32) for name, value in fresh.items()}, path)
    model = build_model(recipe, "lip", codec, base=None, init_from=str(path))
    engine = Engine.build(model, recipe.for_phase("lip"), device=LocalContext().device)
    expected = read_tensors(path)
    for averaged in (False, True):
        state = engine.trained_state(ema=averaged)
        assert len(state) == len(expected)
        assert all(torch.equal(value, expected[file_name(name, "lip")]) for name, value in state.items())


@pytest.mark.parametrize("stage", [0, 1])
def test_the_average_is_exchanged_one_parameter_at_a_time_and_training_continues_unchanged(small, stage):
    recipe = small(*settings(zero_stage=stage, precision="bf16"))
    engine, plain = build(recipe), build(recipe)
    losses = train(engine, recipe, 2)
    assert train(plain, recipe, 2) == losses
    average, weights = engine.trained_state(), engine.trained_state(ema=False)
    assert not all(torch.equal(average[name], weights[name]) for name in weights)
    with torch.no_grad(), engine.averaged():
        own = {name: p.float() for name, p in engine.model.module.named_parameters() if name in average}
    assert all(torch.equal(own[name], value.bfloat16().float()) for name, value in average.items())
    with torch.no_grad(), LiveBytes() as live, engine.averaged():
        pass
    largest = 4 * max(value.numel() for value in average.values())
    assert live.peak <= 2 * largest
    assert train(engine, recipe, 2) == train(plain, recipe, 2)


def test_a_phase_without_frozen_layers_refuses_the_settings_of_a_frozen_base(small):
    for override in ("train.base_dtype=int8", "train.offload=blocks"):
        recipe = small(override, "train.activation_checkpointing=full")
        with pytest.raises(UserError, match=f"{override}: the phase editor trains all weights"):
            build_model(recipe, "editor", load_codec(recipe.codec), base=None, init_from=None)
        # The same refusal comes before the workers start.
        with pytest.raises(UserError, match=f"{override}: the phase editor trains all weights"):
            learner_of(recipe, "editor").check(1)
        learner_of(recipe, "lip").check(1)
        own = [f"syncnet.{setting}" for setting in (override[6:], "activation_checkpointing=full")]
        with pytest.raises(UserError, match=f"{override}: the phase syncnet trains all weights"):
            learner_of(small(*own), "syncnet").check(1)


@pytest.mark.parametrize("name", ["wan-5b-24gb", "tbdub-lora-24gb"])
def test_a_syncnet_of_a_recipe_with_a_compact_or_offloaded_model_is_trained_without_these_settings(name):
    recipe = load_recipe(name)
    assert (recipe.train.base_dtype, recipe.syncnet.train["base_dtype"]) == ("int8", None)
    learner_of(recipe, "syncnet").check(1)


def test_training_warns_of_gradients_that_are_summed_in_bf16(capsys):
    bf16 = ["train.precision=bf16", "train.micro_batch=2", "train.global_batch=8", "train.workers=1"]
    for stage, others in ((2, []), (1, ["train.micro_batch=8"]), (1, ["train.precision=fp32"])):
        warn_bf16_sums("editor", load_recipe("tiny", [*bf16, f"train.zero_stage={stage}", *others]), 1)
    assert not capsys.readouterr().err
    warn_bf16_sums("editor", load_recipe("tiny", [*bf16, "train.zero_stage=1"]), 1)
    warning = capsys.readouterr().err
    assert "gradients of 4 micro batches are summed in bf16" in warning
    assert "--set phases.editor.zero_stage=2" in warning
