"""What one rank does: build everything for its phase, find the latest good state, train, export."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import xdub
from xdub.config import Recipe, TrainConfig, expert_of, recipe_from_dict
from xdub.data.latents import encode_batch
from xdub.data.manifest import file_sha256
from xdub.data.quarantine import Quarantine
from xdub.data.samples import StreamSpec
from xdub.data.stream import LocalStream, RayStream, Stream
from xdub.files.atomic import write_json
from xdub.files.lines import LineFile, read_lines
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.codec import load_codec
from xdub.plan.gpus import peak_flops
from xdub.plan.shapes import shapes
from xdub.seeding import stable_seed
from xdub.tracking.journal import Journal
from xdub.tracking.provenance import count_devices, device_name
from xdub.tracking.tracked_run import JOURNAL
from xdub.train.context import LocalContext, RayContext, TrainContext
from xdub.train.engine import Engine
from xdub.train.networks import build_loss_context, build_model, weights_file
from xdub.train.phases import get_phase
from xdub.train.remote.upload import Uploads
from xdub.train.show.samples import StripSampler
from xdub.train.state.checkpoint import Checkpoints
from xdub.train.state.export import export
from xdub.train.state.records import SKIPPED, CommittedSteps, SkippedBatches
from xdub.train.supervise.watchdog import Watchdog
from xdub.train.trainer import Sampler, Trainer

RESULT = "result.json"
STEPS = "steps.jsonl"
ATTEMPTS = "attempts.jsonl"
"""{attempt, time, workers} of every worker group."""
WORKERS = "workers.json"
"""{attempt, nodes: where each rank of the latest attempt runs}"""
QUARANTINE = "quarantine.jsonl"
UPLOAD_SECONDS = 60.0
"""How long an attempt's end waits for its last upload."""
CACHE_BYTES = 512 << 20
"""Decoded clips a data actor keeps: a tiny data set is decoded once."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All a worker needs to know; picklable."""

    phase: str
    recipe: dict[str, Any]
    data: tuple[str, ...]
    folder: str
    """OUT/<phase>"""
    begun: float = field(default_factory=time.time)
    """Seconds since 1970."""
    base: str | None = None
    init_from: str | None = None
    sampler: Sampler | None = None
    step_flops: float | None = None
    """Model FLOPs of one optimizer step, for MFU; None where no rank has a GPU."""


def run_in_ray(job: TrainJob) -> None:
    """Run one worker of a Ray ``TorchTrainer``; a watchdog ends it when it makes no progress."""
    context = RayContext()
    spare = ((os.cpu_count() or 1) - context.local_world_size) // context.local_world_size
    make_stream = functools.partial(RayStream, actors=(1, max(1, spare // 2)))
    seconds = recipe_from_dict(job.recipe).for_phase(job.phase).hang_seconds
    report = Path(job.folder) / f"hang-{time.strftime('%Y%m%dT%H%M%S')}-rank{context.rank}.txt"
    with Watchdog(seconds, report) as watchdog:
        train_rank(job, context, make_stream, watchdog.beat)


def run_here(job: TrainJob) -> None:
    """The same in this process."""
    train_rank(job, LocalContext(), LocalStream)


def attempts_so_far(folder: Path) -> int:
    """Worker groups that have begun this phase."""
    return sum(1 for _ in read_lines(folder / ATTEMPTS))


def begin_attempt(job: TrainJob, context: TrainContext) -> tuple[int, float]:
    """This attempt's number, and when the first one began (goodput counts from there). Collective."""
    begun = (0, 0.0)
    if context.rank == 0:
        path = Path(job.folder) / ATTEMPTS
        records = list(read_lines(path))
        begun = (len(records) + 1, records[0]["time"] if records else job.begun)
        file = LineFile(path)
        file.append(
            {
                "attempt": begun[0],
                "time": time.time() if records else job.begun,
                "workers": context.world_size,
            }
        )
        file.close()
    return context.gather(begun)[0]


def train_rank(
    job: TrainJob, context: TrainContext, make_stream: Any, beat: Callable[[], None] = lambda: None
) -> None:
    """Train from the latest good checkpoint to the end; rank 0 writes result.json when all is done."""
    recipe, folder, started = recipe_from_dict(job.recipe), Path(job.folder), time.time()
    attempt, begun = begin_attempt(job, context)
    train = recipe.for_phase(job.phase)
    torch.set_num_threads(train.num_threads or max(1, (os.cpu_count() or 1) // context.local_world_size))
    torch.manual_seed(stable_seed(train.seed, "global", context.rank))  # what no explicit generator decides
    codec = load_codec(recipe.codec)
    model = build_model(recipe, job.phase, codec, base=job.base, init_from=job.init_from)
    codec = codec.to(context.device)
    engine = Engine.build(
        model, train, device=context.device, rank=context.rank, world_size=context.world_size
    )
    spec = StreamSpec.from_recipe(
        recipe,
        job.phase,
        job.data,
        rank=context.rank,
        world_size=context.world_size,
    )
    nodes = context.gather(context.node)
    facts = run_facts(job, recipe, context, attempt, data=spec.plan().digest)
    checkpoints = Checkpoints(folder / "checkpoints", keep=train.keep_checkpoints, facts=facts)
    progress = checkpoints.load(engine, context)
    trainer = Trainer(
        phase=get_phase(job.phase),
        loss_context=build_loss_context(recipe, job.phase, codec, context.device),
        engine=engine,
        context=context,
        train=train,
        checkpoints=checkpoints,
        folder=folder,
        attempt=attempt,
        progress=progress,
        encode=functools.partial(
            encode_batch,
            codec=codec,
            audio_encoder=load_audio_encoder(recipe.audio).to(context.device),
            device=context.device,
        ),
        sampler=job.sampler or (StripSampler(recipe, job.phase, job.data) if train.sample_every else None),
        tokens_per_step=train.global_batch * shapes(recipe, job.phase).tokens,
        busy_seconds=_busy_seconds(job.step_flops, context),
        beat=beat,
        begun=begun,
    )
    devices = context.gather(device_name(context.device))
    if context.rank == 0:
        write_json(folder / WORKERS, {"attempt": attempt, "nodes": nodes})
        trainer.skipped = SkippedBatches(folder / SKIPPED, resume_at=progress.cursor)
        trainer.committed = CommittedSteps(folder / STEPS, resume_at=progress.step)
        trainer.journal = Journal(folder / JOURNAL)
        trainer.quarantine = Quarantine(folder / QUARANTINE)
        resumed = checkpoints.folder(progress.step) if progress.step else None
        trainer.uploads = _start_uploads(folder, job.phase, train, resumed)
        trainer.journal.tags({"devices": count_devices(devices), "world_size": str(context.world_size)})
    try:
        if trainer.run(functools.partial(_open_stream, make_stream, spec)) == "finished":
            export(
                folder / "export",
                engine,
                context,
                recipe=recipe,
                phase=job.phase,
                expert=expert_of(job.phase),
                step=trainer.progress.step,
            )
            if context.rank == 0:
                result = {"phase": job.phase, "step": trainer.progress.step, "attempt": attempt}
                result |= {"seconds": time.time() - started, "facts": facts}
                write_json(folder / RESULT, result)
                if trainer.uploads is not None:
                    trainer.uploads.export(folder / "export")
    finally:
        if trainer.uploads is not None and (left := trainer.uploads.close(UPLOAD_SECONDS)):
            print(f"{left}; --resume sends the rest", file=sys.stderr)
        for file in (trainer.journal, trainer.committed, trainer.skipped):
            if file is not None:
                file.close()


def _start_uploads(folder: Path, phase: str, train: TrainConfig, resumed: Path | None) -> Uploads | None:
    """Rank 0's copies to `train.upload_to`, beginning with what an earlier attempt did not get to send."""
    if train.upload_to is None:
        return None
    uploads = Uploads(train.upload_to, phase, keep=train.keep_checkpoints)
    records = (STEPS, JOURNAL, "recipe.json", RESULT, QUARANTINE)
    uploads.records([folder.parent / "run_state.json", *(folder / name for name in records)])
    uploads.start()
    if resumed is not None:
        uploads.checkpoint(resumed)
    return uploads


def _busy_seconds(step_flops: float | None, context: TrainContext) -> float | None:
    """Return the seconds that ``step_flops`` take at the peak of all ranks' GPUs; None without known GPUs."""
    if step_flops is None or context.device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(context.device))
    return step_flops / (peak * context.world_size) if peak else None


def run_facts(
    job: TrainJob, recipe: Recipe, context: TrainContext, attempt: int, data: str
) -> dict[str, Any]:
    """What a checkpoint remembers of its run; some of it must be the same on resume."""
    train, raw = recipe.for_phase(job.phase), job.recipe
    sections = ["video", "codec", "audio", "model"] + (["lora"] if expert_of(job.phase) else [])
    network = hashlib.sha256(
        json.dumps([raw[name] for name in sections], sort_keys=True).encode()
    ).hexdigest()[:16]
    return {
        "phase": job.phase,
        "world_size": context.world_size,
        "zero_stage": train.zero_stage,
        "precision": train.precision,
        "global_batch": train.global_batch,
        "seed": train.seed,
        "ema": train.ema,
        "network": network,
        "base": file_sha256(weights_file(Path(job.base)))[:16] if job.base else None,
        "data": data,
        "attempt": attempt,
        "versions": {
            "xdub": xdub.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "recipe": raw,
    }


def _open_stream(make_stream: Any, spec: StreamSpec, cursor: int, steps: int) -> Stream:
    return make_stream(spec, cursor=cursor, steps=steps, cache_bytes=CACHE_BYTES)
