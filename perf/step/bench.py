"""One real training step on latents of noise: the phase's loss, DeepSpeed, AdamW, the average; timed by its parts."""

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
from xdub.data.batch import Batch
from xdub.data.sound import window_samples
from xdub.geometry import CodecGeometry
from xdub.model.codec import Codec, load_codec
from xdub.plan.rehearsal import inputs
from xdub.precision import DTYPES
from xdub.train.context import LocalContext
from xdub.train.engine import Engine
from xdub.train.meters import GlobalStep, RankStep
from xdub.train.networks import build_loss_context, build_model
from xdub.train.phases import phase_loss
from xdub_kernels import dispatch
from xdub_kernels.attention import cores

IMPLEMENTATIONS = ("reference", "triton")
"""Implementations: torch's operators and its scaled_dot_product_attention, as without Triton; our kernels."""
PARTS = ("forward", "backward", "optimizer")
"""Timed parts of a step."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Measurements of one step."""

    ms: tuple[float, float, float]
    """Milliseconds of each of PARTS."""
    peak_bytes: int | None
    """Peak of torch's allocator in bytes; None on a CPU, where torch does not count."""
    loss: float
    """Value of the phase's loss."""
    grad_norm: float
    """Norm of the whole gradient."""


class LatentCodec:
    """Codec of a loss on latents: a geometry and channels of unit variance, without networks."""

    machine_independent = True

    def __init__(self, geometry: CodecGeometry) -> None:
        self.geometry = geometry
        self.channel_std = torch.ones(geometry.channels)

    def to(self, device: str | torch.device, /) -> LatentCodec:
        """Return the codec itself: nothing lies on a device."""
        return self

    def computing_in(self, dtype: torch.dtype, /) -> LatentCodec:
        """Return the codec itself: it has no network."""
        return self

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Raise ``NotImplementedError``: a loss on latents encodes no pixels."""
        raise NotImplementedError

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Raise ``NotImplementedError``: a loss on latents decodes no pixels."""
        raise NotImplementedError

    def decode_slice(self, z: torch.Tensor, start: int, latents: int) -> torch.Tensor:
        """Raise ``NotImplementedError``: a loss on latents decodes no pixels."""
        raise NotImplementedError

    def decode_next(self, z: torch.Tensor, state: object, /) -> tuple[torch.Tensor, object]:
        """Raise ``NotImplementedError``: a loss on latents decodes no pixels."""
        raise NotImplementedError


class Bench:
    """Engine of a phase, built when a case needs it. Token counts and checkpoint policies share it."""

    def __init__(self, context: LocalContext) -> None:
        self.context, self.device = context, context.device
        self._engine: Engine | None = None
        self._built_for: Any = None
        self._batch: Batch | None = None
        self._loss: Any = None
        self._case: Case | None = None

    def prepare(self, case: Case) -> None:
        """Make ``case`` the problem of the next steps; build another engine if it needs one."""
        if case == self._case and self._engine is not None:
            return
        key = (case.compiled, case.phase)
        if self._engine is None or self._built_for != key:
            self.discard()
            self._engine, self._built_for = self._build(case), key
        network: Any = self._engine.model.module
        network.checkpointing = case.policy
        if case.compiled:
            # A real run has one shape only, and compiles for it.
            torch.compiler.reset()
        self._batch = batch(case, self.device)
        self._case = case

    def _build(self, case: Case) -> Engine:
        recipe, phase = case.recipe, case.phase
        codec: Codec = load_codec(recipe.codec) if expert_of(phase) else LatentCodec(recipe.codec.geometry)
        model = build_model(recipe, phase, codec, base=None, init_from=None)
        wake(model)
        train = recipe.for_phase(phase)
        engine = Engine.build(model, train, device=self.device)
        self._loss = build_loss_context(recipe, phase, codec.to(self.device), self.device)
        return engine

    def step(self) -> Step:
        """Run forward, backward and update as the trainer does; return their measurements."""
        assert self._engine is not None and self._case is not None and self._batch is not None
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        marks, mine = Marks(self.device), RankStep()
        marks.mark()
        terms = phase_loss(self._case.phase)(self._engine.model, self._batch, self._loss)
        # The host waits for the loss here, as in training.
        mine.add(terms, self._batch)
        merged = GlobalStep.merge(self.context.gather(mine))
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
            loss=merged.loss,
            grad_norm=self._engine.grad_norm,
        )

    def discard(self) -> None:
        """Release the engine and its memory; after a failure its state is undefined."""
        if self._engine is not None:
            engine: Any = self._engine.model
            engine.destroy()
        self._engine = self._loss = None
        self._batch = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def batch(case: Case, device: torch.device) -> Batch:
    """Return a batch of noise for a phase's loss, in the shapes of the plan's rehearsal."""
    draw = torch.Generator().manual_seed(0)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=draw).to(device)

    shaped = inputs(case.recipe, case.phase, case.batch, "meta")
    frames, geometry = shaped["z_t"].shape[2], case.recipe.codec.geometry
    mask = torch.ones(case.batch, 1, frames, *shaped["z_t"].shape[3:], device=device)
    samples: Batch = {
        "z0": noise(shaped["z_t"]),
        "z_ref": noise(shaped["z_ref"]),
        "audio": noise(shaped["audio"]),
        "sound": torch.randn(case.batch, window_samples(geometry.frames(frames)), generator=draw).to(device),
        "landmarks": torch.full((case.batch, geometry.frames(frames), 68, 2), torch.nan, device=device),
        "starts": torch.from_numpy(case.recipe.speech.starts(frames)).to(device),
        "face_mask": mask,
        "lip_mask": mask,
        "epochs": torch.zeros(case.batch, dtype=torch.int64),
        "epoch": 0,
        "positions": torch.arange(case.batch),
        "window_starts": torch.zeros(case.batch, dtype=torch.int64),
        "sample_id": [str(number) for number in range(case.batch)],
        "bad": {},
    }
    if "z_mask" in shaped:
        samples["z_mask"] = noise(shaped["z_mask"])
    return samples


def wake(model: nn.Module) -> None:
    """Fill matrices that begin as zeros with noise: zeros block the gradient and multiply faster."""
    draw = torch.Generator().manual_seed(0)
    for p in model.parameters():
        if p.requires_grad and p.ndim > 1 and not p.detach().any():
            p.data.normal_(std=p.shape[-1] ** -0.5, generator=draw)


def obstacle(impl: str, case: Case, device: torch.device) -> str | None:
    """Return why an implementation cannot run on this device; None if it can."""
    if impl == "reference":
        return None
    dtype = DTYPES[case.recipe.for_phase(case.phase).precision]
    return dispatch.triton_obstacle(torch.empty(0, dtype=dtype, device=device))


def chosen(impl: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which `auto` in the model selects this implementation."""
    if impl == "reference":
        return patch.object(dispatch, "HAVE_TRITON", False)
    # Without a GPU the kernels are interpreted.
    return nullcontext() if device.type == "cuda" else dispatch.rehearsing_gpu()


def attention_core(impl: str, case: Case, device: torch.device) -> str:
    """Return the name of the kernel that computes softmax(q k^T) v."""
    if impl == "reference":
        return "sdpa"
    model, dtype = case.recipe.model, DTYPES[case.recipe.for_phase(case.phase).precision]
    heads = (model.num_heads, model.hidden_size // model.num_heads)
    q = torch.empty(1, cores.CUDNN_TOKENS, *heads, dtype=dtype, device=device)
    return cores.pick_core(q, deterministic=torch.are_deterministic_algorithms_enabled())


@contextmanager
def one_rank() -> Generator[LocalContext]:
    """Yield a process group of one rank; destroy it through DeepSpeed, whose next engine would reuse a dead group."""
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
