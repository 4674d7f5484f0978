"""Compare the plan's activation memory with what a machine allocates: `python -m xdub.plan.check`.

The prediction is a rehearsal that allocates nothing. The measurement runs the reference operators on a CPU under
torch's profiler, or our kernels on a GPU under its caching allocator.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from xdub.config import Policy, Recipe, load_recipe
from xdub.files.atomic import check_output
from xdub.model.backbone import Backbone
from xdub.model.build import build_backbone
from xdub.model.checkpointing import POLICIES
from xdub.model.frozen_base import store_frozen
from xdub.model.lora import adapt
from xdub.model.offload import BlockOffload
from xdub.model.sequence import ONE_RANK, SequenceGroup
from xdub.plan.rehearsal import Activations, forward_backward, inputs, measure, rehearse
from xdub.precision import DTYPES
from xdub_kernels.qknorm_rope.reference import cached_rope_tables

CASES = (
    ("tiny", "generator", ("train.micro_batch=4",)),
    ("tiny", "editor", ("train.micro_batch=1", "train.precision=bf16")),
    ("small", "lip", ("model.num_layers=2", "video.size=64", "phases.lip.window=25", "train.precision=fp32")),
    (
        "xdub-1b",
        "editor",
        (
            "model.num_layers=2",
            "video.size=64",
            "phases.editor.window=13",
            "train.workers=1",
            "train.precision=fp32",
        ),
    ),
)
"""Recipe, phase, and settings that make it small enough for a CPU; most CPUs multiply bf16 slowly."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Peak bytes of activations of one micro batch, forwards and backwards."""

    recipe: str
    phase: str
    set: list[str]
    policy: Policy
    device: str
    micro_batch: int
    predicted: int
    measured: int

    @property
    def difference(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1


def check(
    recipe: Recipe, phase: str, policy: Policy, device: torch.device, overrides: tuple[str, ...] = ()
) -> Agreement:
    """Predict and measure the peak of one network and batch."""
    batch = recipe.for_phase(phase).micro_batch
    if device.type == "cuda":
        predicted, measured = (
            rehearse(recipe, phase, policy, batch, capability=torch.cuda.get_device_capability(device)),
            measured_on_gpu(recipe, phase, policy, device),
        )
    else:
        predicted, measured = rehearse_on_cpu(recipe, phase, policy), measured_on_cpu(recipe, phase, policy)
    return Agreement(
        recipe=recipe.name,
        phase=phase,
        set=list(overrides),
        policy=policy,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        micro_batch=batch,
        predicted=predicted.peak,
        measured=measured,
    )


def rehearse_on_cpu(recipe: Recipe, phase: str, policy: Policy) -> Activations:
    """Run `rehearse` with the operators of a CPU, on fake tensors that have no memory."""
    # A cached table of real memory would not be counted, and a fake table must not stay in the cache.
    cached_rope_tables.cache_clear()
    try:
        model, _ = _setup(recipe, phase, policy, "cpu")
        model.share_sequence(SequenceGroup(0, recipe.for_phase(phase).sequence_parallel))
        mode = FakeTensorMode()
        _to_fake(model, mode)
        with mode:
            return measure(model, inputs(recipe, phase, recipe.for_phase(phase).micro_batch, "cpu"))
    finally:
        cached_rope_tables.cache_clear()


def measured_on_cpu(recipe: Recipe, phase: str, policy: Policy, group: SequenceGroup = ONE_RANK) -> int:
    """Return the peak bytes of torch's CPU allocator, from its own records; all ranks of ``group`` call together."""
    model, arguments = _setup(recipe, phase, policy, "cpu", real=True)
    model.share_sequence(group)
    # The rehearsal counts the tables as activations, so they are computed here, too.
    cached_rope_tables.cache_clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        forward_backward(model, arguments)
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def measured_on_gpu(recipe: Recipe, phase: str, policy: Policy, device: torch.device) -> int:
    """Return the peak bytes of the caching allocator in the second pass, without weights and batch."""
    model, arguments = _setup(recipe, phase, policy, str(device), real=True)
    forward_backward(model, arguments)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    forward_backward(model, arguments)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _setup(
    recipe: Recipe, phase: str, policy: Policy, device: str, *, real: bool = False
) -> tuple[Backbone, dict[str, Any]]:
    """Return the network of a phase and its inputs. ``real``: with offloaded blocks, if the recipe has them."""
    train = recipe.for_phase(phase)
    model, dtype = build_backbone(recipe, phase), DTYPES[train.precision]
    adapt(model, recipe, phase)
    store_frozen(model, train, phase)
    offload = None
    if real and train.offloads("blocks"):
        offload = BlockOffload(model.blocks, torch.device(device), dtype)
    model = model.to(device=device, dtype=dtype).train()
    if offload is not None:
        offload.rest()
    model.checkpointing = policy
    return model, inputs(recipe, phase, train.micro_batch, device)


def _to_fake(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace parameters and buffers by fake tensors of the mode, which have no memory."""
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            fake = nn.Parameter(mode.from_tensor(p.detach()), requires_grad=p.requires_grad)
            module.register_parameter(name, fake)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, mode.from_tensor(buffer))


def agreements(device: torch.device) -> Iterator[Agreement]:
    """Yield a row for every case and policy."""
    for name, phase, overrides in CASES:
        for policy in POLICIES:
            yield check(load_recipe(name, overrides), phase, policy, device, overrides)


def main() -> None:
    """Print the table; ``--out`` also writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="JSON file")
    out = parser.parse_args().out
    if out is not None:
        check_output(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    print(f"{'recipe':8} {'phase':10} {'policy':10} {'predicted MB':>12} {'measured MB':>12} {'off by':>8}")
    for row in agreements(device):
        rows.append(asdict(row) | {"difference": row.difference})
        print(
            f"{row.recipe:8} {row.phase:10} {row.policy:10} {row.predicted / 1e6:12.1f} "
            f"{row.measured / 1e6:12.1f} {row.difference:+8.1%}",
            flush=True,
        )
    worst = max(abs(row["difference"]) for row in rows)
    print(f"largest difference {worst:.1%} of {len(rows)} on {rows[0]['device']}")
    if out is not None:
        facts = {
            "command": "python -m xdub.plan.check",
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        out.write_text(
            json.dumps(facts | {"largest_difference": worst, "activations": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
