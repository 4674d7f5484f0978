"""The plan of pairs and dubs follows the sampler: its calls, its windows, its networks and its memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xdub.config import load_recipe
from xdub.diffusion import evaluation_times, evaluations, sample
from xdub.diffusion.sampler import SOLVERS
from xdub.dub.editing import editing_of
from xdub.dub.segments import PAPER, joining_of, plan_segments
from xdub.dub.testing import small_recipe
from xdub.dub.window import Window
from xdub.dub.window_sampler import WindowSampler, bands_of
from xdub.errors import UserError
from xdub.model.audio_encoder import LogMelEncoder
from xdub.model.published import editor_name
from xdub.model.testing import add_experts, random_backbone, random_codec
from xdub.plan.codec_cost import decode_flops, decoder_state_bytes, encode_flops
from xdub.plan.flops import ENCODED, FILTERS, SPEECH, compute_seconds
from xdub.plan.gpus import known_gpu
from xdub.plan.loss_networks import mean_slice_start
from xdub.plan.network import count_parameters
from xdub.plan.sampling_cost import forward_bytes, forward_flops
from xdub.plan.sampling_plan import (
    CONDITIONS,
    DECODED,
    STEPS,
    SamplingPlan,
    editor_of_pairs,
    encoded_motions,
    plan_sampling,
    window_bytes,
    window_decode_flops,
)

GPU = known_gpu("a100-80gb")


def plans(recipe, **options) -> tuple[SamplingPlan, SamplingPlan]:
    pairs, dub = plan_sampling(recipe, GPU, gpus=4, efficiency=0.5, **options)
    return pairs, dub


class FreeAudio(LogMelEncoder):
    """Audio encoder without matrix products, which torch would count."""

    def __init__(self) -> None:
        super().__init__(80)

    def encode(self, wav: np.ndarray) -> torch.Tensor:
        return torch.zeros(round(len(wav) / 320), self.dim)


@given(st.sampled_from(SOLVERS), st.integers(1, 9), st.floats(0.2, 8))
def test_the_times_of_all_evaluations_are_those_of_the_sampler(solver, num_steps, shift):
    called = []
    sample(
        lambda z, t: torch.zeros_like(z),
        torch.zeros(1, 1, 1, 1, 1),
        num_steps=num_steps,
        shift=shift,
        solver=solver,
        on_step=called.append,
    )
    assert evaluation_times(solver, num_steps, shift) == called
    assert len(called) == evaluations(solver, num_steps)


@pytest.mark.parametrize("use", ["generator", "editor"])
def test_the_flops_of_a_window_are_those_of_the_sampler(use):
    """The whole sampler runs under torch's counter: conditions, evaluations with experts, and the codec."""
    recipe = small_recipe("dub.sampler_steps=6", "pairs.sampler_steps=3")
    codec = random_codec(recipe.codec.channels)
    backbone = random_backbone(recipe, use, codec)
    bands = ()
    if use == "editor":
        add_experts(backbone, recipe)
        bands = bands_of(recipe, ("lip", "texture"))
    settings, frames = (recipe.dub, 25) if use == "editor" else (recipe.pairs, 25)
    sampler = WindowSampler(
        backbone,
        codec,
        FreeAudio(),
        num_steps=settings.sampler_steps,
        shift=settings.sampler_shift,
        solver=settings.solver,
        bands=bands,
    )
    pictures = np.zeros((frames, 32, 32, 3), np.uint8)
    hidden = np.ones((frames, 32, 32), bool) if use == "generator" else None
    window = Window(
        frames=pictures, sound=np.zeros(640 * (frames + 50), np.float32), noise=(0,), hidden=hidden
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sampler([window])
    pairs, dub = plans(recipe)
    parts = (dub if use == "editor" else pairs).window_flops
    # The first window of a track has no motion frames.
    encoded = encode_flops(recipe, 25) + (encode_flops(recipe, 1) if use == "generator" else 0.0)
    planned = parts[CONDITIONS] + parts[STEPS] + parts[DECODED] + encoded
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_blocks_beyond_the_second_cost_as_much_as_the_second():
    recipe = small_recipe("model.num_layers=5")
    two = small_recipe("model.num_layers=2")
    one = small_recipe("model.num_layers=1")
    for phase in ("generator", "lip"):
        five, pair, single = (forward_flops(each, phase, 25) for each in (recipe, two, one))
        assert five.velocity == pair.velocity + 3 * (pair.velocity - single.velocity)
        kept = [forward_bytes(each, phase, 25, 2).kept for each in (recipe, two, one)]
        assert kept[0] == kept[1] + 3 * (kept[1] - kept[2])


@pytest.fixture(scope="module")
def production() -> tuple[SamplingPlan, SamplingPlan]:
    """Plan of 0.1 hours with the networks of production at 64 px."""
    return plans(load_recipe("xdub-1b", SMALLER), hours=0.1)


SMALLER = ["model.num_layers=2", "video.size=64"]


def test_the_windows_of_pairs_are_those_of_clips_and_the_windows_of_a_dub_those_of_one_track(production):
    pairs, dub = production
    clips = 0.1 * 3600 * 25 / 77
    assert pairs.windows == pytest.approx(clips * len(plan_segments(77, 25, 5)))
    assert dub.windows == len(plan_segments(9000, 77, 5))
    assert pairs.evaluations == dub.evaluations == 30
    assert pairs.hours * 4 == pytest.approx(pairs.windows * pairs.window_seconds / 3600)
    assert pairs.cost == pytest.approx(pairs.gpu_hours * GPU.price)
    long = replace(pairs, windows=10_000 * pairs.windows)
    assert 24 * (long.gpus_for_a_day - 1) < long.gpu_hours <= 24 * long.gpus_for_a_day


def test_every_network_of_the_worker_is_in_flops_and_memory(production):
    pairs, dub = production
    assert all(
        pairs.window_flops[name] > 0 for name in (CONDITIONS, STEPS, ENCODED, DECODED, SPEECH, FILTERS)
    )
    assert FILTERS not in dub.window_flops
    # A window of 77 frames is decoded once: twenty latents.
    assert dub.window_flops[DECODED] == decode_flops(load_recipe("xdub-1b", SMALLER), 20)
    # Whisper large in fp32, and a Wan VAE in bf16.
    assert dub.memory.frozen_networks == pytest.approx(4 * 637e6 + 2 * 127e6, rel=0.01)
    assert pairs.memory.frozen_networks > dub.memory.frozen_networks
    single = plans(load_recipe("xdub-1b", [*SMALLER, "pairs.batch=1"]))[0]
    assert pairs.memory.working > 7 * single.memory.working


def test_networks_in_fp32_run_at_half_the_peak():
    peak = GPU.tflops * 1e12
    assert compute_seconds({STEPS: peak, SPEECH: peak}, "bf16", GPU) == pytest.approx(3)
    assert compute_seconds({STEPS: peak, SPEECH: peak}, "fp32", GPU) == pytest.approx(4)


def test_the_mean_slice_start_of_a_decoded_slice_is_that_of_the_draws():
    recipe = load_recipe("xdub-1b")
    # Twenty latents: from 0 or, with two motion latents, from 1, up to 16.
    assert mean_slice_start(recipe, "lip") == pytest.approx(0.5 * 8 + 0.5 * 8.5)
    assert mean_slice_start(load_recipe("xdub-1b", ["phases.lip.window=13"]), "lip") == 0


GUIDED = ["dub.guidance.reference=2", "dub.sampler_steps=2"]


def test_the_plan_of_a_guided_dub_counts_three_branches_as_the_sampler_does():
    recipe = small_recipe(*GUIDED, "model.num_layers=1")
    codec = random_codec(recipe.codec.channels)
    backbone = random_backbone(recipe, "editor", codec)
    sampler = WindowSampler(backbone, codec, FreeAudio(), num_steps=2, editing=editing_of(recipe))
    window = Window(
        frames=np.zeros((25, 32, 32, 3), np.uint8), sound=np.zeros(640 * 75, np.float32), noise=(0,)
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sampler([window])
    _, dub = plans(recipe)
    assert dub.evaluations == 6
    planned = sum(dub.window_flops[name] for name in (CONDITIONS, STEPS, DECODED)) + encode_flops(recipe, 25)
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_branches_one_after_another_keep_all_conditions_and_work_on_one():
    together, apart, plain = (
        window_bytes(recipe, "editor", recipe.dub, 25, 1)
        for recipe in (
            small_recipe(*GUIDED),
            small_recipe(*GUIDED, "dub.guidance.batched=false"),
            small_recipe(),
        )
    )
    assert apart.kept == pytest.approx(3 * plain.kept)
    assert together.kept == pytest.approx(3 * plain.kept, rel=0.05)
    assert apart.working == plain.working < together.working / 2


def test_windows_that_continue_latents_encode_no_motion_and_decode_their_own_latents():
    recipe = load_recipe("xdub-1b", [*SMALLER, "dub.motion=latents"])
    frames = replace(recipe.dub, motion="frames")
    geometry = recipe.codec.geometry
    by_frames, by_latents = joining_of(frames, geometry), joining_of(recipe.dub, geometry)
    assert encoded_motions(by_frames, 10) == 0.9 and encoded_motions(by_latents, 10) == 0
    assert encoded_motions(replace(by_latents, lead_in=True), 10) == 0.1
    whole, part = (window_decode_flops(recipe, dub, 77, 10) for dub in (frames, recipe.dub))
    later = decode_flops(recipe, 19) - decode_flops(recipe, 1)
    assert whole == decode_flops(recipe, 20)
    # Of twenty latents of every later window, eighteen are the window's own.
    assert part == pytest.approx((whole + 9 * later) / 10)
    # Joined windows that continue frames are decoded twice, but for the last of a track.
    joined = window_decode_flops(recipe, replace(frames, join="mean"), 77, 10)
    assert joined == pytest.approx(part + 0.9 * whole)
    assert encoded_motions(joining_of(replace(frames, join="mean"), geometry), 10) == 0.9
    assert joining_of(recipe.pairs, geometry) == by_frames == PAPER
    # One frame of bf16 states of Wan 2.1's decoder stays between windows, at 8 x 8 latent pixels.
    assert decoder_state_bytes(recipe) == 64 * 308_000
    assert decoder_state_bytes(small_recipe()) == 0


def test_a_recipe_without_a_generator_has_pairs_by_the_editor_that_it_starts_from():
    settings = [*GUIDED, "pairs.batch=2", "dub.sampler_shift=1", "dub.window=13"]
    full = small_recipe(*settings)
    recipe = replace(full, phases={name: full.phases[name] for name in ("editor", "lip")})
    pairs, dub = plans(recipe, hours=2)
    assert (pairs.name, pairs.batch, pairs.frames, pairs.evaluations) == ("pairs", 2, 13, 6)
    # A clip of 45 frames has five windows, all but the first of which continue five frames of their predecessors.
    assert pairs.windows == 2 * 3600 * 25 / 45 * 5
    # No expert is active in pairs, and each clip is judged.
    assert pairs.window_flops[STEPS] < dub.window_flops[STEPS]
    assert pairs.window_flops[FILTERS] > 0 and FILTERS not in dub.window_flops
    assert pairs.memory.weights == 4 * count_parameters(full, "editor").total < dub.memory.weights
    bases = [replace(recipe, train=replace(recipe.train, tune=tune)) for tune in ("all", "adapter")]
    assert count_parameters(editor_of_pairs(bases[1], None), "editor") == count_parameters(bases[0], "editor")


def test_pairs_by_a_published_editor_are_planned_by_its_name():
    recipe = small_recipe("video.size=64")
    pairs, dub = plans(recipe, hours=1, generator="tbdub-student")
    assert (pairs.name, pairs.evaluations, pairs.frames) == ("pairs", 2, 77)
    assert pairs.memory.weights == pytest.approx(4 * 6_295_697_088, rel=0.001)
    assert dub == plans(recipe, hours=1)[1]
    assert editor_name("tbdub-student:DIR") == editor_name("tbdub-student") == "tbdub-student"
    with pytest.raises(UserError, match="tiny: is no published editor; use xdub-public"):
        editor_name("tiny")


def test_a_tuned_adapter_is_merged_and_compact_storage_is_of_training_only():
    whole = small_recipe("train.precision=bf16")
    assert plans(small_recipe("train.precision=bf16", "train.tune=adapter"), hours=1) == plans(whole, hours=1)
    lip = {**whole.phases["lip"].train, "base_dtype": "int8"}
    compact = replace(whole, phases={**whole.phases, "lip": replace(whole.phases["lip"], train=lip)})
    assert plans(compact, hours=1) == plans(whole, hours=1)
