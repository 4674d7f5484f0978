"""`train_phase`: one phase from its data to its exported weights, restartable at any point."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.config import Recipe
from xdub.data.plan import make_plan
from xdub.errors import UserError
from xdub.train.launch import check_resources, run_job
from xdub.train.networks import weights_file
from xdub.train.phases import get_phase
from xdub.train.progress import Show, watch
from xdub.train.records import last_record, write_atomic
from xdub.train.tracked import Tracking
from xdub.train.tracking import read_state
from xdub.train.trainer import Sampler
from xdub.train.worker import RESULT, STEPS, TrainJob

BYTES_PER_PARAMETER = 16
"""Weights, two Adam moments and the average, fp32, in a checkpoint."""


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
    train, expert = recipe.for_phase(phase), get_phase(phase).EXPERT
    init_from = init_from or train.init_from
    if expert is not None:
        base = base or out / "editor" / "export"
    rows = _check_data(folders, phase, recipe)
    sources = {"base": _weights(base), "init_from": _weights(init_from)}

    folder = out / phase
    _make_folder(folder)
    with _only_one(folder):
        result = _read_result(folder)
        _check_fresh(folder, resume)
        if result is not None and result["step"] >= train.steps:
            Tracking(out, phase).send_rest()
            return _result(phase, folder, out, "finished", 0, started)
        _check_disk(folder, recipe, expert)
        if not local:
            check_resources(train.workers)
        attempt = _next_attempt(folder)
        (folder / RESULT).unlink(missing_ok=True)
        write_atomic(folder / "recipe.json", json.dumps(recipe.to_dict(), indent=1))
        tracking = Tracking(out, phase)
        tracking.begin(recipe, folders, rows)
        job = TrainJob(
            phase=phase,
            recipe=recipe.to_dict(),
            data=tuple(str(path.resolve()) for path in folders),
            folder=str(folder.resolve()),
            attempt=attempt,
            sampler=sampler,
            **sources,
        )
        status = "FAILED"
        try:
            with watch(phase, folder / STEPS, train.steps, progress):
                attempts = run_job(job, workers=train.workers, local=local)
            status = "FINISHED" if (folder / RESULT).is_file() else "KILLED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracking.end(status)
        return _result(
            phase, folder, out, "finished" if status == "FINISHED" else "stopped", attempts, started
        )


def _check_data(folders: list[Path], phase: str, recipe: Recipe) -> int:
    """Rows that can be used, or UserError."""
    train = recipe.for_phase(phase)
    plan = make_plan(folders, phase=phase, window=recipe.phase(phase).window, seed=train.seed or 0)
    if len(plan) < train.global_batch:  # each repetition has its own window and noise
        what = f"{len(plan)} usable clips for batches of {train.global_batch}"
        print(f"{phase}: {what}: clips repeat within a batch, more data would be better", file=sys.stderr)
    return len(plan)


def _weights(path: str | Path | None) -> str | None:
    return None if path is None else str(weights_file(Path(path)).resolve())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder} ({error.strerror}); choose another --out"
        ) from error


@contextmanager
def _only_one(folder: Path) -> Generator[None]:
    """A lock that its holder's death releases: two runs must not write one folder."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder} is being trained by another process; wait for it or choose another --out"
            ) from None
        yield


def _check_fresh(folder: Path, resume: bool) -> None:
    if not resume and ((folder / STEPS).exists() or (folder / RESULT).exists()):
        raise UserError(f"{folder} already holds a run: add --resume to continue it, or choose another --out")


def _check_disk(folder: Path, recipe: Recipe, expert: str | None) -> None:
    """Room for the checkpoints that are kept at once."""
    m, train = recipe.model, recipe.for_phase(folder.name)
    parameters = m.num_layers * m.hidden_size**2 * (12 + 2 * m.ffn_ratio + 9 / m.num_layers)
    if expert is not None:
        parameters = m.num_layers * 12 * 2 * m.hidden_size * recipe.lora.rank
    needed = parameters * BYTES_PER_PARAMETER * (train.keep_checkpoints + 1) + 100e6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB free, checkpoints need about {needed / 1e9:.1f} GB; "
            "free some, lower train.keep_checkpoints, or choose another --out"
        )


def _next_attempt(folder: Path) -> int:
    """1, 2, ...: later attempts of a running job add to it, so they are counted from the record too."""
    record = last_record(folder / STEPS)
    path = folder / "attempt"
    known = int(path.read_text()) if path.is_file() else 0
    attempt = max(known, record["attempt"] if record else 0) + 1
    write_atomic(path, str(attempt))
    return attempt


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
