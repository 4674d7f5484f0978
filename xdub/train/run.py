"""`train_phase`: check, restore, track and supervise one phase, from its data to its exported weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from xdub.config import Recipe, in_model, located, network_digests, phase_facts
from xdub.data.latent_cache.folder import required_caches
from xdub.files.atomic import write_json
from xdub.files.content import content_digest
from xdub.files.lock import exclusive
from xdub.files.run_folder import PhaseFolder
from xdub.files.storage import address
from xdub.headers import check_networks
from xdub.model.editor_start import start_from_editor
from xdub.model.licences import require_base_licence, require_licence, require_one, weights_licences
from xdub.model.published import published_folder
from xdub.tracking.runs import read_state
from xdub.tracking.stage_tracker import StageTracker
from xdub.train.learners import learner_of
from xdub.train.networks import start_weights
from xdub.train.rank import DIGITS, TrainJob
from xdub.train.remote.restore import restore
from xdub.train.remote.store import check as check_remote
from xdub.train.show.step_progress import Show, watch
from xdub.train.state.committed_steps import last_record
from xdub.train.state.export import exported_model
from xdub.train.supervise.cluster import check_resources, use_gpu
from xdub.train.supervise.launch import run_job
from xdub.train.supervise.preflight import (
    check_data,
    check_disk,
    check_fresh,
    create_folder,
    warn_bf16_sums,
    warn_random_start,
)
from xdub.train.trainer import Sampler


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """State of a phase when `train_phase` returns."""

    phase: str
    status: Literal["finished", "stopped"]
    """``stopped`` means that a stop request ended the phase with a checkpoint, so `resume` continues."""
    step: int
    loss: float | None
    folder: PhaseFolder
    export: Path | None
    """Folder with the weights; None before the phase is finished."""
    attempts: int
    """Worker groups that this call started."""
    seconds: float
    run_id: str | None
    """Id in the tracker."""


def train_phase(
    phase: str,
    recipe: Recipe,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    base: str | Path | None = None,
    local: bool = False,
    progress: Show | None = None,
    sampler: Sampler | None = None,
) -> RunResult:
    """Train ``phase`` into OUT/<phase>; `xdub.files.run_folder` lists the files.

    Args:
        data: folders or URIs of data sets, in order.
        resume: continue from the latest good checkpoint, if there is one; a finished phase returns at once.
        init_from: weights to start from, for an expert an adapter. A published editor NAME:DIR becomes the recipe's
            `model.base`, with its codec, audio encoder, prompt and sizes (`xdub.model.editor_start`).
        base: the editor under an expert, or a published editor NAME:DIR; OUT/editor/export if not given.
        local: train in this process without Ray, with one worker.

    Raises UserError for every problem that the caller can solve.
    """
    start = time.monotonic()
    init_from = init_from or recipe.for_phase(phase).init_from
    for model in (init_from, base):
        if model is not None and (published := published_folder(model)) is not None:
            require_licence(published.editor.name)
    recipe = start_from_editor(recipe, init_from, base)
    if in_model(phase):
        require_base_licence(recipe)
    folder, train = PhaseFolder(out, phase), recipe.for_phase(phase)
    sets = [data] if isinstance(data, (str, Path)) else list(data)

    # Check everything that can be checked before the folder exists.
    check_data(sets, phase, recipe)
    check_networks(recipe, (phase,))
    train.groups_of(1 if local else train.workers)
    learner_of(recipe, phase).check(train.workers)
    caches = () if is_finished(folder, train.steps) else required_caches(recipe, phase, sets)
    if base is None and phase_facts(phase).expert is not None:
        base = folder.run.phase(str(phase_facts(phase).starts_from)).export
    base_file = _weights(base)
    # The recipe has the weights of a published editor as its open weights.
    init_file = None if init_from is not None and published_folder(init_from) else _weights(init_from)
    create_folder(folder)
    if train.upload_to is not None:
        check_remote(train.upload_to, phase, fresh=not resume)

    busy = f"{folder} is being trained by another process; wait for it or choose another --out"
    with exclusive(folder.lock, busy=busy):
        if train.upload_to is not None and resume:
            restore(train.upload_to, folder)
        check_fresh(folder, resume)
        read_state(folder.run)
        tracker = StageTracker(folder.run, phase, folder)
        if is_finished(folder, train.steps):
            tracker.send_rest()
            return _result(folder, "finished", 0, start)
        check_disk(folder, recipe)
        warn_random_start(folder, recipe, init_file)
        warn_bf16_sums(phase, recipe, 1 if local else train.workers)
        if not local:
            check_resources(train)

        folder.result.unlink(missing_ok=True)
        write_json(folder.recipe, recipe.to_dict())
        with _tracked(tracker, folder, recipe, sets):
            job = TrainJob(
                folder=folder.resolved(),
                recipe=located(recipe),
                data=tuple(address(each) for each in sets),
                networks=network_digests(recipe, (phase,)),
                base=base_file,
                base_digest=None if base_file is None else _digest(Path(base_file)),
                init_from=init_file,
                caches=caches,
                sampler=sampler,
                step_flops=_step_flops(recipe, phase, local),
            )
            with watch(phase, folder.steps, train.steps, progress):
                attempts = run_job(job, local=local)
        return _result(folder, "finished" if folder.result.is_file() else "stopped", attempts, start)


def _step_flops(recipe: Recipe, phase: str, local: bool) -> float | None:
    """Count the model FLOPs of a step once for all ranks; None where none has a GPU, so that MFU is not defined."""
    if torch.cuda.is_available() if local else use_gpu():
        return learner_of(recipe, phase).step_flops()
    return None


def _weights(path: str | Path | None) -> str | None:
    """Return the absolute path of weights. Raise UserError if there are none."""
    if path is None:
        return None
    if (published := published_folder(path)) is not None:
        path = published.weights
    weights = start_weights(Path(path)).path
    require_one(weights_licences(weights))
    return str(weights.resolve())


def _digest(path: Path) -> str:
    """Return the digest of weights: that of their file, or of their folder if they are several."""
    files = start_weights(path).files
    return content_digest(files[0] if len(files) == 1 else path)[:DIGITS]


@contextmanager
def _tracked(
    tracker: StageTracker, folder: PhaseFolder, recipe: Recipe, data: Sequence[str | Path]
) -> Iterator[None]:
    """Send the phase to the tracker while it runs, and its status and weights at the end."""
    facts = {"resolved": vars(recipe.for_phase(folder.phase))}
    tracker.begin(recipe.to_dict(), recipe.to_yaml(), data, facts)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield
        status = "FINISHED" if folder.result.is_file() else "KILLED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        model = exported_model(folder.export) if status == "FINISHED" else None
        tracker.end(status, model=model)


def is_finished(folder: PhaseFolder, steps: int) -> bool:
    """Return whether an earlier call trained the phase for at least ``steps`` steps."""
    return folder.result.is_file() and json.loads(folder.result.read_text("utf-8"))["step"] >= steps


def _result(
    folder: PhaseFolder, status: Literal["finished", "stopped"], attempts: int, start: float
) -> RunResult:
    record: dict[str, Any] | None = last_record(folder.steps)
    return RunResult(
        phase=folder.phase,
        status=status,
        step=record["step"] if record else 0,
        loss=float.fromhex(record["loss"]) if record else None,
        folder=folder,
        export=folder.export if status == "finished" else None,
        attempts=attempts,
        seconds=time.monotonic() - start,
        run_id=read_state(folder.run).get("phases", {}).get(folder.phase),
    )
