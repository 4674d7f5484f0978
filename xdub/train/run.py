"""`train_phase`: one phase from its data to its exported weights, restartable at any point."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xdub.config import Recipe, check_weights, phase_facts
from xdub.files.atomic import write_json
from xdub.files.lock import exclusive
from xdub.plan.flops import train_step_flops
from xdub.tracking.sink import read_state
from xdub.tracking.tracked_run import TrackedRun
from xdub.train.networks import weights_file
from xdub.train.rank import RESULT, STEPS, TrainJob
from xdub.train.remote.restore import restore
from xdub.train.remote.store import check as check_remote
from xdub.train.show.progress import Show, watch
from xdub.train.state.exported import exported_model
from xdub.train.state.records import last_record
from xdub.train.supervise.cluster import check_resources, use_gpu
from xdub.train.supervise.launch import run_job
from xdub.train.supervise.preflight import check_data, check_disk, check_fresh, make_folder
from xdub.train.trainer import Sampler


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a phase."""

    phase: str
    status: str
    """finished, or stopped (asked to, with a checkpoint; `resume` continues)."""
    step: int
    loss: float | None
    folder: Path
    export: Path | None
    """Folder with the weights, when finished."""
    attempts: int
    seconds: float
    run_id: str | None


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
    """Train ``phase`` into OUT/<phase>: checkpoints, steps.jsonl, journal.jsonl, samples/, export/, result.json.

    ``resume`` continues from the latest good checkpoint (from nothing if there is none); a finished phase returns at
    once. ``init_from``: weights to start from (for an expert: an adapter). ``base``: the editor under an expert,
    OUT/editor/export if not given. ``local`` trains in this process without Ray, with one worker. UserError for
    whatever the caller can mend.
    """
    out, started = Path(out), time.monotonic()
    folders = [Path(data)] if isinstance(data, (str, Path)) else [Path(folder) for folder in data]
    train, facts = recipe.for_phase(phase), phase_facts(phase)
    init_from = init_from or train.init_from
    if facts.expert is not None:
        base = base or out / str(facts.starts_from) / "export"
    check_data(folders, phase, recipe)
    check_weights(recipe, (phase,))
    sources = {"base": _weights(base), "init_from": _weights(init_from)}

    folder = out / phase
    make_folder(folder)
    if train.upload_to is not None:
        check_remote(train.upload_to, phase, fresh=not resume)
    busy = f"{folder} is being trained by another process; wait for it or choose another --out"
    with exclusive(folder / ".lock", busy=busy):
        if train.upload_to is not None and resume:
            restore(train.upload_to, folder)
        result = _read_result(folder)
        check_fresh(folder, resume)
        if result is not None and result["step"] >= train.steps:
            TrackedRun(out, phase, folder).send_rest()
            return _result(phase, folder, out, "finished", 0, started)
        check_disk(folder, recipe)
        if not local:
            check_resources(train)
        (folder / RESULT).unlink(missing_ok=True)
        write_json(folder / "recipe.json", recipe.to_dict())
        tracking = TrackedRun(out, phase, folder)
        tracking.begin(recipe.to_dict(), recipe.to_yaml(), folders, {"resolved": vars(train)})
        job = TrainJob(
            phase=phase,
            recipe=recipe.to_dict(),
            data=tuple(str(path.resolve()) for path in folders),
            folder=str(folder.resolve()),
            sampler=sampler,
            step_flops=_step_flops(recipe, phase, local),
            **sources,
        )
        status = "FAILED"
        try:
            with watch(phase, folder / STEPS, train.steps, progress):
                attempts = run_job(job, local=local)
            status = "FINISHED" if (folder / RESULT).is_file() else "KILLED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            model = exported_model(folder / "export") if status == "FINISHED" else None
            tracking.end(status, model=model)
        return _result(
            phase, folder, out, "finished" if status == "FINISHED" else "stopped", attempts, started
        )


def _step_flops(recipe: Recipe, phase: str, local: bool) -> float | None:
    """Count the model FLOPs of a step once for all ranks; None where none has a GPU, so that MFU is not defined."""
    if torch.cuda.is_available() if local else use_gpu():
        return train_step_flops(recipe, phase)
    return None


def _weights(path: str | Path | None) -> str | None:
    return None if path is None else str(weights_file(Path(path)).resolve())


def _read_result(folder: Path) -> dict[str, Any] | None:
    path = folder / RESULT
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _result(phase: str, folder: Path, out: Path, status: str, attempts: int, started: float) -> RunResult:
    record = last_record(folder / STEPS)
    return RunResult(
        phase=phase,
        status=status,
        step=record["step"] if record else 0,
        loss=float.fromhex(record["loss"]) if record else None,
        folder=folder,
        export=folder / "export" if status == "finished" else None,
        attempts=attempts,
        seconds=time.monotonic() - started,
        run_id=read_state(out).get("phases", {}).get(phase),
    )
