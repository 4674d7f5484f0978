"""Build Triton kernels for a GPU that is not here, and read off the machine code what a run would suffer from.

The product's own launch functions run on tensors without memory (device "meta"); a driver that only names its
architecture and a `JITFunction.run` that stops after compiling make of each launch a build, with exactly the types,
alignments and constants that the launch would have.
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
from typing import Any
from unittest import mock

SHARED_LIMIT = {80: 166_912, 90: 232_448}
"""Bytes of shared memory a block may have: A100; H100 and H200."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the machine code of one kernel tells."""

    registers: int
    stack: int
    """Bytes of local memory a thread has, spilled registers among them."""
    shared: int
    loop_instructions: int
    """Length of the longest innermost loop."""
    loop_spills: int
    """Loads and stores of local memory inside innermost loops."""
    instructions: dict[str, int] = field(default_factory=dict)
    """How often the instructions that matter occur: see `WATCHED`."""

    def to_dict(self) -> dict[str, Any]:
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
"""Name -> pattern in SASS."""


class BuildOnlyDriver:
    """Says which GPU to build for; nothing can be launched on it."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture  # kernels are cached by device: one cache for each architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self):
        import torch

        return torch.device("meta")


@contextmanager
def building(architecture: int) -> Iterator[list[tuple[str, Any]]]:
    """Inside, every launch of a kernel compiles it for ``architecture`` and appends (name, compiled kernel)."""
    import triton
    from triton.runtime.jit import JITFunction

    compiled: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self, *arguments, grid, warmup, **options):
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        compiled.append((self.fn.__name__, kernel))
        return kernel

    before = triton.runtime.driver._active
    triton.runtime.driver.set_active(BuildOnlyDriver(architecture))
    try:
        with mock.patch.object(JITFunction, "run", compile_only):
            yield compiled
    finally:
        triton.runtime.driver._active = before


def build(architecture: int, launch: Callable[[], object]) -> dict[str, Built]:
    """Kernel name -> what was built, for all kernels that ``launch`` would launch."""
    with building(architecture) as compiled, _quiet():
        launch()
    return {name: inspect(kernel) for name, kernel in compiled}


@contextmanager
def _quiet() -> Iterator[None]:
    """A compiler that fails prints its whole program to stderr, from C++: the exception says what is needed."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
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
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    lines = [(int(address, 16), text) for address, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)]
    loops = innermost_loops(lines)
    inside = [[text for address, text in lines if low <= address <= high] for low, high in loops]
    return Built(
        registers=int(found[1]),
        stack=int(found[2]),
        shared=kernel.metadata.shared,
        loop_instructions=max(map(len, inside), default=0),
        loop_spills=sum(bool(re.search(r"\b(LDL|STL)\b", text)) for loop in inside for text in loop),
        instructions={
            name: count
            for name, pattern in WATCHED.items()
            if (count := sum(bool(re.search(pattern, text)) for _, text in lines))
        },
    )


def innermost_loops(lines: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """(first, last address) of the loops that hold no other loop; a loop is a branch to an earlier address.

    The branch to itself with which every kernel ends is none.
    """
    backward = []
    for address, text in lines:
        target = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < address:
            backward.append((int(target[1], 16), address))
    return [
        one
        for one in backward
        if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in backward)
    ]


def _cuobjdump(flag: str, path: str) -> str:
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    done = subprocess.run([str(tool), flag, path], capture_output=True, text=True, check=True)
    return done.stdout
