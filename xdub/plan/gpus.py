"""GPU types: memory and arithmetic from the data sheets, and the rental price that a plan assumes."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.errors import UserError
from xdub_kernels.dispatch import Capability

GIB = 2**30
"""Bytes of one GiB."""
TF32 = 0.5
"""Peak of TF32 relative to bf16, which is the same on every GPU of the table."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One type of accelerator."""

    name: str
    """Name that `--gpu` accepts."""
    memory: int
    """Usable memory in bytes, as the driver reports it, before any safety margin."""
    tflops: float
    """Peak dense bf16 throughput with fp32 accumulation, TFLOP/s (not the figure with sparsity)."""
    link: float
    """Bytes/s that one GPU sends to its neighbours in one direction, over NVLink or else PCIe."""
    capability: Capability
    """Compute capability, by which our kernels run or torch's operators in their place; None if it is not known."""
    price: float
    """ASSUMPTION, not a quotation: US dollars for one hour on demand, which `--price` replaces."""

    def peak(self, precision: str) -> float:
        """Return the peak in FLOP/s of matrix products in a precision; products of fp32 numbers run in TF32."""
        return self.tflops * 1e12 * (1.0 if precision == "bf16" else TF32)


def _gpu(
    name: str, gib: float, tflops: float, link_gb: float, capability: tuple[int, int], price: float
) -> Gpu:
    return Gpu(
        name=name,
        memory=int(gib * GIB),
        tflops=tflops,
        link=link_gb * 1e9,
        capability=capability,
        price=price,
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40gb", 39.4, 312.0, 300.0, (8, 0), 1.3),
        _gpu("a100-80gb", 79.2, 312.0, 300.0, (8, 0), 1.8),
        _gpu("h100-80gb", 79.1, 989.0, 450.0, (9, 0), 3.0),
        _gpu("h100-pcie", 79.1, 756.0, 64.0, (9, 0), 2.5),
        _gpu("h200", 139.8, 989.0, 450.0, (9, 0), 3.6),
        _gpu("b200", 178.0, 2250.0, 900.0, (10, 0), 5.5),
        _gpu("l40s", 44.4, 362.0, 32.0, (8, 9), 1.0),
        _gpu("a6000", 47.4, 155.0, 32.0, (8, 6), 0.6),
        _gpu("rtx-4090", 23.5, 165.0, 32.0, (8, 9), 0.4),
        _gpu("rtx-3090", 23.6, 71.0, 32.0, (8, 6), 0.25),
    )
}
"""GPU types by name. The GeForce figures are those with fp32 accumulation, as training uses it."""

_DEVICE_NAMES = (
    (("a100", "40gb"), "a100-40gb"),
    (("a100",), "a100-80gb"),
    (("h100", "pcie"), "h100-pcie"),
    (("h100",), "h100-80gb"),
    (("h200",), "h200"),
    (("b200",), "b200"),
    (("l40s",), "l40s"),
    (("rtx a6000",), "a6000"),
    (("rtx 4090",), "rtx-4090"),
    (("rtx 3090",), "rtx-3090"),
)
"""Words of ``torch.cuda.get_device_name()`` -> our name, most specific first."""


def known_gpu(name: str | None, *, memory_gb: float | None = None, tflops: float | None = None) -> Gpu:
    """Return the GPU of ``--gpu``; ``memory_gb`` (GiB) and ``tflops`` replace its figures, or describe another GPU.

    UserError lists the known names.
    """
    for option, value in (("--memory-gb", memory_gb), ("--tflops", tflops)):
        if value is not None and not 0 < value < 1e6:
            raise UserError(f"{option} {value:g} must be a positive number below a million")
    base = GPUS.get(name.lower()) if name is not None else None
    if base is None and (memory_gb is None or tflops is None):
        problem = "no GPU is named" if name is None else f"unknown GPU {name!r}"
        raise UserError(
            f"{problem}: use --gpu with one of {', '.join(GPUS)}, or describe one by --memory-gb and --tflops"
        )
    return Gpu(
        name=name or "gpu",
        memory=base.memory if base and memory_gb is None else int((memory_gb or 0) * GIB),
        tflops=base.tflops if base and tflops is None else tflops or 0.0,
        link=base.link if base else 32e9,
        capability=base.capability if base else None,
        price=base.price if base else 0.0,
    )


def gpu_called(device_name: str) -> Gpu | None:
    """Return the GPU that ``torch.cuda.get_device_name()`` names; None for a device that is not in the table."""
    lowered = device_name.lower()
    return next((GPUS[name] for words, name in _DEVICE_NAMES if all(word in lowered for word in words)), None)


def peak_flops(device_name: str) -> float | None:
    """Return the dense bf16 peak, FLOP/s, of a device by its name in torch; None if the table lacks it."""
    gpu = gpu_called(device_name)
    return gpu.tflops * 1e12 if gpu else None
