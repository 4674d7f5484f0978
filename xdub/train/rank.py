"""One rank of a phase: build everything, load the latest good checkpoint, train, export."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import xdub
from xdub.config import Recipe, TrainConfig
from xdub.data.samples import StreamSpec
from xdub.data.stream import LocalStream, RayStream, Stream
from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.lines import LineFile, read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.files.storage import Location
from xdub.model.codec import Codec, load_codec
from xdub.model.sequence import join_sequence_group
from xdub.plan.gpus import peak_flops
from xdub.precision import dtype_of, open_device
from xdub.seeding import stable_seed
from xdub.tracking.provenance import count_devices, device_name
from xdub.train.context import LocalContext, RayContext, TrainContext
from xdub.train.engine import Engine
from xdub.train.learners import learner_of
from xdub.train.learners.base import Learner
from xdub.train.networks import weights_file
from xdub.train.phases import phase_loss
from xdub.train.records import Records, RunRecords
from xdub.train.remote.upload import Uploads
from xdub.train.state.checkpoint import Checkpoints, Progress
from xdub.train.state.export import export
from xdub.train.state.run_identity import network_digest
from xdub.train.supervise.watchdog import Watchdog
from xdub.train.trainer import Sampler, Trainer

CACHE_BYTES = 512 << 20
"""Size of the decoded clips that a data actor keeps, so that a tiny data set is decoded once."""

DIGITS = 16
"""Length of the digest of the frozen weights in a checkpoint's facts."""

MakeStream = Callable[..., Stream]
"""(spec, *, cursor, steps, cache_bytes) -> batches of one rank."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that the workers of a phase need; picklable."""

    folder: PhaseFolder
    """Folder of the phase, with an absolute path."""
    recipe: Recipe
    """The recipe with absolute paths."""
    data: tuple[str, ...]
    started: float = field(default_factory=time.time)
    """Time of the job's creation, seconds since 1970."""
    networks: dict[str, str] = field(default_factory=dict)
    """Role -> digest of the frozen networks that the phase loads from a path."""
    base: str | None = None
    """File or folder of the frozen weights under an expert."""
    base_digest: str | None = None
    """First `DIGITS` digits of the digest of ``base`` (`xdub.files.content.content_digest`)."""
    init_from: str | None = None
    """File or folder of the weights to start from."""
    caches: tuple[Location, ...] = ()
    """Folder with the cached latents of each data set; () for a phase that encodes its samples."""
    sampler: Sampler | None = None
    step_flops: float | None = None
    """Model FLOPs of one optimizer step, for MFU; None where no rank has a GPU."""

    @property
    def phase(self) -> str:
        """Name of the phase."""
        return self.folder.phase

    @property
    def train(self) -> TrainConfig:
        """Training section of the phase."""
        return self.recipe.for_phase(self.phase)


def run_in_ray(job: TrainJob) -> None:
    """Run one worker of a Ray ``TorchTrainer``; a watchdog ends it when it makes no progress."""
    context = RayContext()
    spare = ((os.cpu_count() or 1) - context.local_world_size) // context.local_world_size
    make_stream = functools.partial(RayStream, actors=(1, max(1, spare // 2)))
    with Watchdog(job.train.hang_seconds, job.folder.hang_report(context.rank)) as watchdog:
        train_rank(job, context, make_stream, watchdog.beat)


def run_locally(job: TrainJob) -> None:
    """Train the phase in this process, with one rank."""
    train_rank(job, LocalContext(), LocalStream)


def attempts_so_far(folder: PhaseFolder) -> int:
    """Count the worker groups that have started this phase."""
    return sum(1 for _ in read_lines(folder.attempts))


def begin_attempt(job: TrainJob, context: TrainContext) -> tuple[int, float]:
    """Record a new attempt; return its number and the start of the first one, which goodput counts from. Collective."""
    attempt, started = 0, 0.0
    if context.rank == 0:
        records = list(read_lines(job.folder.attempts))
        attempt, started = len(records) + 1, records[0]["time"] if records else job.started
        file = LineFile(job.folder.attempts)
        file.append(
            {
                "attempt": attempt,
                "time": time.time() if records else job.started,
                "workers": context.world_size,
            }
        )
        file.close()
    return context.gather((attempt, started))[0]


def train_rank(
    job: TrainJob,
    context: TrainContext,
    make_stream: MakeStream,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Train from the latest good checkpoint to the end; rank 0 then writes the result."""
    attempt_start = time.time()
    attempt, started = begin_attempt(job, context)
    train = job.train
    torch.set_num_threads(train.num_threads or max(1, (os.cpu_count() or 1) // context.local_world_size))
    # This seed governs all random numbers that have no generator of their own. Ranks that share a sample draw the same.
    torch.manual_seed(stable_seed(train.seed, "global", context.rank // train.sequence_parallel))
    spec = StreamSpec.from_recipe(
        job.recipe,
        job.phase,
        job.data,
        rank=context.rank,
        world_size=context.world_size,
        caches=job.caches,
    )
    learner = learner_of(job.recipe, job.phase)
    learner.check(context.world_size)
    codec = load_codec(job.recipe.codec)
    trainer = _build_trainer(job, context, spec, learner, codec, attempt=attempt, started=started, beat=beat)
    try:
        _check_networks(trainer, context, functools.partial(learner.objection, spec=spec, codec=codec))
        if trainer.run(functools.partial(_open_stream, make_stream, spec)) == "finished":
            export(
                job.folder.export,
                trainer.engine,
                context,
                recipe=job.recipe,
                phase=job.phase,
                step=trainer.progress.step,
                metadata=learner.metadata(),
            )
            beat()
            result: dict[str, Any] = {"phase": job.phase, "step": trainer.progress.step, "attempt": attempt}
            result |= {"seconds": time.time() - attempt_start, "facts": trainer.checkpoints.facts}
            if context.rank == 0:
                weights = weights_file(job.folder.export)
                figures, metrics = learner.assess(weights, job.data, codec, open_device(context.device), beat)
                result |= figures
                trainer.records.evaluate(trainer.progress.step, metrics)
            trainer.records.finish(result)
    finally:
        trainer.records.close()


def _build_trainer(
    job: TrainJob,
    context: TrainContext,
    spec: StreamSpec,
    learner: Learner,
    codec: Codec,
    *,
    attempt: int,
    started: float,
    beat: Callable[[], None],
) -> Trainer:
    """Load the networks and the latest good checkpoint of a rank, then open its records."""
    recipe, train = job.recipe, job.train
    model = learner.build(codec, base=job.base, init_from=job.init_from)
    if train.sequence_parallel > 1:
        group = join_sequence_group(train.sequence_parallel, rank=context.rank, world_size=context.world_size)
        learner.share_sequence(model, group)
    device = open_device(context.device)
    codec = codec.computing_in(dtype_of(recipe.train.precision)).to(device)
    engine = Engine.build(model, train, device=device, rank=context.rank, world_size=context.world_size)
    facts = run_facts(job, context.world_size, attempt, data=spec.order().digest)
    checkpoints = Checkpoints(job.folder, keep=train.keep_checkpoints, facts=facts)
    progress = checkpoints.load(engine, context)
    return Trainer(
        folder=job.folder,
        loss=phase_loss(job.phase),
        loss_context=learner.loss_context(codec, device),
        engine=engine,
        context=context,
        train=train,
        checkpoints=checkpoints,
        progress=progress,
        encode=learner.encoder(codec, device),
        records=_open_records(job, context, progress, attempt),
        sampler=job.sampler or learner.sampler(job.data),
        tokens_per_step=learner.tokens_per_step,
        busy_seconds=_busy_seconds(job.step_flops, context),
        beat=beat,
        started=started,
    )


def _check_networks(trainer: Trainer, context: TrainContext, objection: Callable[..., str | None]) -> None:
    """Let rank 0 measure the frozen networks on the data before the first step. Collective.

    Raise UserError, on every rank, for a network that does not work on the data.
    """
    reason = None
    if context.rank == 0 and trainer.progress.step == 0:
        reason = objection(trainer.loss_context, device=context.device)
    reason = context.gather(reason)[0]
    if reason is not None:
        raise UserError(reason)


def _open_records(job: TrainJob, context: TrainContext, progress: Progress, attempt: int) -> Records:
    """Open the records on rank 0; on other ranks return records that do nothing. Collective."""
    nodes, devices = context.gather(context.node), context.gather(device_name(context.device))
    if context.rank > 0:
        return Records()
    train, folder, uploads = job.train, job.folder, None
    if train.upload_to is not None:
        uploads = Uploads(train.upload_to, folder, keep=train.keep_checkpoints)
    write_json(folder.workers, {"attempt": attempt, "nodes": nodes})
    records = RunRecords(folder, progress, attempt=attempt, uploads=uploads)
    records.tags({"devices": count_devices(devices), "world_size": str(context.world_size)})
    return records


def _open_stream(make_stream: MakeStream, spec: StreamSpec, cursor: int, steps: int) -> Stream:
    return make_stream(spec, cursor=cursor, steps=steps, cache_bytes=CACHE_BYTES)


def _busy_seconds(step_flops: float | None, context: TrainContext) -> float | None:
    """Return the seconds that ``step_flops`` take at the peak of all ranks' GPUs; None without known GPUs."""
    if step_flops is None or context.device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(context.device))
    return step_flops / (peak * context.world_size) if peak else None


def run_facts(job: TrainJob, world_size: int, attempt: int, data: str) -> dict[str, Any]:
    """Return facts about the run for its checkpoints; `xdub.train.state.run_identity` compares them."""
    train, sections = job.train, job.recipe.to_dict()
    return {
        "phase": job.phase,
        "world_size": world_size,
        "sequence_parallel": train.sequence_parallel,
        "zero_stage": train.zero_stage,
        "precision": train.precision,
        "global_batch": train.global_batch,
        "seed": train.seed,
        "ema": train.ema,
        "network": network_digest(sections, job.phase, paths=not job.networks),
        "networks": job.networks,
        "base": job.base_digest,
        "data": data,
        # A run of an earlier version had the grid of 1 frame.
        "window_stride": None if train.window_stride == 1 else train.window_stride,
        "attempt": attempt,
        "versions": {
            "xdub": xdub.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "recipe": sections,
    }
