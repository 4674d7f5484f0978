"""GPUs are looked up by a user's short name and by the name that a driver reports."""

from __future__ import annotations

import pytest

from xdub.errors import UserError
from xdub.plan.gpus import GPUS, known_gpu, peak_flops


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
