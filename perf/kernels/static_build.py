"""Build Triton kernels without their GPU, and read spills, memory use and instructions off the machine code.

The product's own launch functions run on tensors without memory (device "meta"). A driver that only names its
architecture and a `JITFunction.run` that stops after compiling turn each launch into a build with exactly the types,
alignments and constants of a real launch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest import mock

SHARED_LIMIT = {80: 166_912, 90: 232_448}
"""Bytes of shared memory a block may have: A100; H100 and H200."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """Figures of one kernel's machine code."""

    registers: int
    """Registers of a thread."""
    stack: int
    """Bytes of local memory of a thread, spilled registers among them."""
    shared: int
    """Bytes of shared memory of a block."""
    loop_instructions: int
    """Length of the longest innermost loop."""
    loop_spills: int
    """Loads and stores of local memory inside innermost loops."""
    instructions: dict[str, int] = field(default_factory=dict)
    """Counts of the instructions in `WATCHED`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


WATCHED = {
    "wgmma": r"\bHGMMA",
    "mma": r"\bHMMA",
    "cp.async": r"\bLDGSTS",
    "tma": r"\bUTMALDG",
    "setmaxnreg": r"\bUSETMAXREG",
    "load128": r"\bLDG\.E\S*\.128",
    "load16": r"\bLDG\.E\S*\.[US]16",
    "store128": r"\bSTG\.E\S*\.128",
    "store16": r"\bSTG\.E\S*\.[US]16",
}
"""Watched instructions: name -> pattern in SASS."""


class BuildOnlyDriver:
    """Driver that names the GPU to build for and cannot launch."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self):
        """Return Triton's description of the GPU."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        """Return the architecture as the device, because kernels are cached by device."""
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        """Return 0: nothing is launched on a stream."""
        return 0

    def get_active_torch_device(self):
        """Return the meta device."""
        import torch

        return torch.device("meta")


@contextmanager
def building(architecture: int) -> Iterator[list[tuple[str, Any]]]:
    """Turn every launch into a build for ``architecture``; yield the list of (name, compiled kernel) that grows."""
    import triton
    from triton.runtime.jit import JITFunction

    compiled: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self, *arguments, grid, warmup, **options):
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        compiled.append((self.fn.__name__, kernel))
        return kernel

    before = triton.runtime.driver._active
    # A driver has more methods than a build calls.
    triton.runtime.driver.set_active(cast(Any, BuildOnlyDriver(architecture)))
    try:
        with mock.patch.object(JITFunction, "run", compile_only):
            yield compiled
    finally:
        triton.runtime.driver._active = before


def build(architecture: int, launch: Callable[[], object]) -> dict[str, Built]:
    """Return kernel name -> figures, for all kernels that ``launch`` would launch."""
    with building(architecture) as compiled, _quiet():
        launch()
    return {name: inspect(kernel) for name, kernel in compiled}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence stderr: a failing compiler prints its whole program from C++, and the exception has the reason."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def inspect(kernel: Any) -> Built:
    """Read registers, stack, shared memory and the loop's instructions off a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = (_cuobjdump(flag, file.name) for flag in ("-res-usage", "-sass"))
    sizes = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert sizes, usage
    lines = [(int(address, 16), text) for address, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)]
    loops = innermost_loops(lines)
    bodies = [[text for address, text in lines if low <= address <= high] for low, high in loops]
    return Built(
        registers=int(sizes[1]),
        stack=int(sizes[2]),
        shared=kernel.metadata.shared,
        loop_instructions=max(map(len, bodies), default=0),
        loop_spills=sum(bool(re.search(r"\b(LDL|STL)\b", text)) for body in bodies for text in body),
        instructions={
            name: count
            for name, pattern in WATCHED.items()
            if (count := sum(bool(re.search(pattern, text)) for _, text in lines))
        },
    )


def innermost_loops(lines: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """Return (first, last address) of the loops that hold no other loop; a loop is a branch to an earlier address.

    The branch to itself that ends every kernel is not a loop.
    """
    backward = []
    for address, text in lines:
        target = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < address:
            backward.append((int(target[1], 16), address))
    return [
        loop
        for loop in backward
        if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in backward)
    ]


def _cuobjdump(flag: str, path: str) -> str:
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    done = subprocess.run([str(tool), flag, path], capture_output=True, text=True, check=True)
    return done.stdout
