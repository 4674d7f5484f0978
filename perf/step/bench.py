"""One real training step on latents made up: the phase's loss, DeepSpeed, AdamW, the average; timed by its parts."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn

from perf.kernels.timing import Marks
from perf.step.case import Case
from xdub.config import expert_of
from xdub.data.windows import audio_starts
from xdub.model.codec import load_codec
from xdub.plan.rehearsal import PRECISION, inputs
from xdub.train.context import LocalContext
from xdub.train.engine import Engine
from xdub.train.meters import GlobalStep, RankStep
from xdub.train.networks import build_loss_context, build_model
from xdub.train.phases import get_phase
from xdub_kernels import dispatch
from xdub_kernels.attention import cores

IMPLEMENTATIONS = ("reference", "triton")
"""torch's operators and its scaled_dot_product_attention, as where Triton is not installed; our kernels."""
PARTS = ("forward", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step that was taken."""

    ms: tuple[float, float, float]
    """Of each of PARTS."""
    peak_bytes: int | None
    """The most that torch's allocator had handed out at once; None on a CPU, where nobody counts."""
    loss: float
    grad_norm: float


class Bench:
    """The engine of a phase, built when it is needed. Token counts and checkpoint policies share it."""

    def __init__(self, context: LocalContext) -> None:
        self.context, self.device = context, context.device
        self._engine: Engine | None = None
        self._built_for: Any = None
        self._batch: dict[str, Any] = {}
        self._loss: Any = None
        self._case: Case | None = None

    def prepare(self, case: Case) -> None:
        """The next steps are those of ``case``."""
        if case == self._case and self._engine is not None:
            return
        wanted = (case.compiled, case.phase)
        if self._engine is None or self._built_for != wanted:
            self.discard()
            self._engine, self._built_for = self._build(case), wanted
        network: Any = self._engine.model.module
        network.checkpointing = case.policy
        if case.compiled:
            torch.compiler.reset()  # a real run has one shape only, and compiles for it
        self._batch = batch(case, self.device)
        self._case = case

    def _build(self, case: Case) -> Engine:
        recipe, phase = case.recipe, case.phase
        # A loss on latents needs no codec, and its preconditioning takes channels of unit variance then.
        codec: Any = load_codec(recipe.codec) if expert_of(phase) else None
        model = build_model(recipe, phase, codec, base=None, init_from=None)
        wake(model)
        train = recipe.for_phase(phase)
        engine = Engine.build(model, train, device=self.device)
        codec = codec.to(self.device) if codec else None
        self._loss = build_loss_context(recipe, phase, codec, self.device)
        return engine

    def step(self) -> Step:
        """Forward, backward, update, as the trainer does them."""
        assert self._engine is not None and self._case is not None
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        marks, mine = Marks(self.device), RankStep()
        marks.mark()
        terms = get_phase(self._case.phase).loss(self._engine.model, self._batch, self._loss)
        mine.add(terms, self._batch)  # the host waits for the loss here, in training too
        told = GlobalStep.merge(self.context.gather(mine))
        marks.mark()
        self._engine.backward(terms.total, last=True)
        marks.mark()
        if not self._engine.step():
            raise ArithmeticError("the gradient is not finite")
        marks.mark()
        forward, backward, optimizer = marks.spans()
        return Step(
            ms=(forward, backward, optimizer),
            peak_bytes=torch.cuda.max_memory_allocated(self.device) if cuda else None,
            loss=told.loss,
            grad_norm=self._engine.grad_norm,
        )

    def discard(self) -> None:
        """Let go of the engine and its memory: after a failure, what is left in it is anyone's guess."""
        if self._engine is not None:
            self._engine.model.destroy()
        self._engine = self._loss = None
        self._batch = {}
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def batch(case: Case, device: torch.device) -> dict[str, Any]:
    """Samples of a phase as its loss takes them, of the shapes that the planner rehearses with, filled with noise."""
    draw = torch.Generator().manual_seed(0)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=draw).to(device)

    shaped = inputs(case.recipe, case.phase, case.batch, "meta")
    frames = shaped["z_t"].shape[2]
    mask = torch.ones(case.batch, 1, frames, *shaped["z_t"].shape[3:], device=device)
    made: dict[str, Any] = {
        "z0": noise(shaped["z_t"]),
        "z_ref": noise(shaped["z_ref"]),
        "audio": noise(shaped["audio"]),
        "starts": torch.from_numpy(audio_starts(frames, case.recipe.codec.geometry)).to(device),
        "face_mask": mask,
        "lip_mask": mask,
        "epochs": torch.zeros(case.batch, dtype=torch.int64),
        "sample_id": [str(number) for number in range(case.batch)],
        "bad": {},
    }
    if "z_mask" in shaped:
        made["z_mask"] = noise(shaped["z_mask"])
    return made


def wake(model: nn.Module) -> None:
    """Noise for matrices that begin as zeros: behind them there would be no gradient, and zeros multiply faster."""
    draw = torch.Generator().manual_seed(0)
    for p in model.parameters():
        if p.requires_grad and p.ndim > 1 and not p.detach().any():
            p.data.normal_(std=p.shape[-1] ** -0.5, generator=draw)


def obstacle(impl: str, case: Case, device: torch.device) -> str | None:
    """Why an implementation cannot run here; None if it can."""
    if impl == "reference":
        return None
    dtype = PRECISION[case.recipe.for_phase(case.phase).precision]
    return dispatch.triton_obstacle(torch.empty(0, dtype=dtype, device=device))


def chosen(impl: str, device: torch.device) -> AbstractContextManager[object]:
    """Within it, `auto` in the model means this implementation."""
    if impl == "reference":
        return patch.object(dispatch, "HAVE_TRITON", False)
    return nullcontext() if device.type == "cuda" else dispatch.rehearsing_gpu()  # the latter: interpreted


def attention_core(impl: str, case: Case, device: torch.device) -> str:
    """Which kernel does softmax(q k^T) v."""
    if impl == "reference":
        return "sdpa"
    model, dtype = case.recipe.model, PRECISION[case.recipe.for_phase(case.phase).precision]
    heads = (model.num_heads, model.hidden_size // model.num_heads)
    q = torch.empty(1, cores.CUDNN_TOKENS, *heads, dtype=dtype, device=device)
    return cores.pick_core(q, deterministic=torch.are_deterministic_algorithms_enabled())


@contextmanager
def one_rank() -> Generator[LocalContext]:
    """A process group of one, ended as DeepSpeed wants it: behind its back, the next engine would use a dead one."""
    ours = not dist.is_initialized()
    context = LocalContext()
    try:
        yield context
    finally:
        if ours:
            import deepspeed.comm

            if deepspeed.comm.is_initialized():
                deepspeed.comm.destroy_process_group()
            else:
                dist.destroy_process_group()
