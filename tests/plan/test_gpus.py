"""GPUs are looked up by a user's short name and by the name that a driver reports."""

from __future__ import annotations

import pytest
import torch

from xdub.config import load_recipe
from xdub.errors import UserError
from xdub.plan.gpus import GPUS, known_gpu, peak_flops
from xdub.plan.phase_plan import plan_phase
from xdub.plan.rehearsal import LiveBytes, activations
from xdub.plan.sampling_cost import forward_bytes
from xdub_kernels import attention
from xdub_kernels.dispatch import CAPABILITIES, choose, rehearsing_gpu


@pytest.mark.parametrize(
    ("device", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 3090 Ti", 71),
    ],
)
def test_a_name_that_a_driver_reports_has_the_dense_peak(device, tflops):
    assert peak_flops(device) == tflops * 1e12


def test_a_device_that_is_not_in_the_table_has_no_peak():
    assert peak_flops("AMD Instinct MI300X") is None
    assert peak_flops("cpu") is None


def test_an_unknown_gpu_lists_the_known_ones():
    with pytest.raises(UserError) as caught:
        known_gpu("a1000")
    assert all(name in str(caught.value) for name in GPUS)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_in_the_table_can_be_described():
    gpu = known_gpu("mi300x", memory_gb=192, tflops=1307)
    assert (gpu.name, gpu.memory, gpu.tflops) == ("mi300x", 192 * 2**30, 1307)
    assert known_gpu("h200", memory_gb=100).tflops == GPUS["h200"].tflops
    with pytest.raises(UserError, match="--memory-gb -1 must be a positive number"):
        known_gpu("h200", memory_gb=-1)


def test_a_rehearsal_chooses_the_operators_that_run_on_the_gpu():
    q = torch.empty(1, 2048, 2, 16, dtype=torch.bfloat16, device="meta")
    chosen = {}
    for name, gpu in GPUS.items():
        with rehearsing_gpu(gpu.capability), LiveBytes() as live:
            chosen[name] = choose("auto", "shifted_rope_attention", q)
            attention(q, q, q)
        # torch's fused attention never materialises the scores, either.
        assert live.peak < 2 * q.nbytes
    own = {name for name, implementation in chosen.items() if implementation == "triton"}
    assert own == {"a100-40gb", "a100-80gb", "h100-80gb", "h100-pcie", "h200"}
    assert known_gpu("mi300x", memory_gb=192, tflops=1307).capability is None
    assert known_gpu("h200", memory_gb=100).capability == (9, 0) == CAPABILITIES[-1]


def test_a_gpu_without_our_kernels_is_planned_with_the_fp32_copies_of_the_reference():
    recipe = load_recipe(
        "small", ["model.num_layers=1", "train.precision=bf16", "train.activation_checkpointing=none"]
    )
    ours, reference = (
        plan_phase(recipe, "editor", known_gpu(name), efficiency=0.4).memory.activations_kept
        for name in ("a100-80gb", "rtx-4090")
    )
    assert ours < reference
    peaks = [activations(recipe, "editor", "none", 1, capability=c).peak for c in ((8, 0), (8, 9), None)]
    assert peaks[0] < peaks[1] == peaks[2]
    working = [forward_bytes(recipe, "editor", 25, 1, capability=c).working for c in ((9, 0), (8, 6))]
    assert working[0] < working[1]
