"""Driver of `xdub encode`: which shards lack entries, the pool of workers, and the report."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xdub.config import Recipe, in_model, inpaints, located
from xdub.data.latent_cache.folder import CacheFolder, cache_root, resolved, write_key
from xdub.data.latent_cache.key import LatentKey, latent_key
from xdub.data.latent_cache.reader import verify_entries
from xdub.data.manifest import Manifest, read_manifest
from xdub.encode.worker import UNFINISHED, EncodeOutcome, EncodeUnit, EncodeWorker
from xdub.errors import UserError
from xdub.files.lock import exclusive
from xdub.files.storage import Location, address
from xdub.headers import check_networks
from xdub.pool import WorkerPool, Workers
from xdub.progress import Rate, Report, ignore

LOCK = ".lock"
"""File that the process which writes a cache on a disk holds."""


@dataclass(kw_only=True)
class EncodeReport:
    """Result of one call."""

    folders: list[str] = field(default_factory=list)
    """Caches, one for each key."""
    shards: int = 0
    """Shards that have entries now, over all caches."""
    encoded: int = 0
    """Shards that this call encoded."""
    clips: int = 0
    """Clips that this call encoded."""
    windows: int = 0
    references: int = 0
    """Number of reference frames."""
    bytes: int = 0
    """Bytes of the files of this call."""
    bad: dict[str, str] = field(default_factory=dict)
    """Clip id -> reason why it has no entries."""
    seconds: float = 0.0
    """Wall time."""
    steps: dict[str, float] = field(default_factory=dict)
    """Worker seconds by step."""


def encode_latents(
    recipe: Recipe,
    data: str | Path,
    *,
    phases: Sequence[str] | None = None,
    workers: int | Workers = 1,
    local: bool = False,
    verify: bool = False,
    on_progress: Report | None = None,
) -> EncodeReport:
    """Encode all windows of a data set that training may draw. Shards that have entries are skipped.

    Args:
        phases: phases of the recipe that will read the cache; default: all that train on such data.
        workers: Ray actors, each with a GPU if the cluster has any; `Workers` describes an elastic pool.
        local: run in this process, without Ray.
        verify: hash the existing files, and compute damaged ones again.

    Raises:
        UserError: the data set or a network is missing, another process writes the cache, or shards could not be read;
            then all other shards have been encoded.
    """
    begin, report = time.monotonic(), EncodeReport()
    manifest = read_manifest(data)
    size = workers if isinstance(workers, Workers) else Workers(least=workers, most=workers)
    keys = cache_keys(recipe, manifest.kind, phases)
    check_networks(recipe, tuple(keys))
    failures: list[str] = []
    for phase, key in keys.items():
        folder = write_key(cache_root(recipe, phase, data), key)
        report.folders.append(str(folder))
        with _writing(folder.location):
            if verify:
                _remove_damaged(folder)
            units = missing_units(folder, manifest)
            report.shards += len(manifest.shards)
            pool = WorkerPool(
                EncodeWorker,
                {
                    "recipe": located(recipe).to_dict(),
                    "phase": phase,
                    "data": address(data),
                    "folder": resolved(folder.location),
                    # Sums in the same order have the same bits on every machine.
                    "threads": None if local else 1,
                },
                size,
                name="encode",
                failed=lambda unit, reason: EncodeOutcome(shard=unit.shard, failure=reason),
                local=local,
            )
            outcomes = pool.outcomes(units)
            failures += _collect(outcomes, units, manifest, report, on_progress or ignore)
    report.seconds = time.monotonic() - begin
    if failures:
        raise UserError(
            f"{manifest.folder}: {len(failures)} of {len(manifest.shards)} shards could not be encoded; "
            f"first {failures[0]}"
        )
    return report


def cache_keys(recipe: Recipe, kind: str, phases: Sequence[str] | None = None) -> dict[str, LatentKey]:
    """Return phase -> key for data of a kind ("clips" or "pairs"); of phases with an equal key, the first one.

    Raise UserError if no phase of the recipe trains on such data, or one of ``phases`` does not.
    """
    fitting = [name for name in recipe.phase_names if inpaints(name) == (kind == "clips")]
    for name in phases or ():
        if not in_model(name):
            raise UserError(f"{name}: a SyncNet trains on pixels, which need no cache")
        if name not in fitting:
            raise UserError(
                f"{name}: trains on {'pairs' if kind == 'clips' else 'clips'}, and the data are {kind}; choose "
                f"{' or '.join(fitting) or 'other data'}"
            )
    if not fitting:
        raise UserError(f"recipe {recipe.name} has no phase that trains on {kind}")
    keys: dict[str, LatentKey] = {}
    for name in phases or fitting:
        key = latent_key(recipe, name)
        # Phases may read their caches from different folders.
        locations = {(other.digest, recipe.for_phase(phase).latent_cache) for phase, other in keys.items()}
        if (key.digest, recipe.for_phase(name).latent_cache) not in locations:
            keys[name] = key
    return keys


def missing_units(folder: CacheFolder, manifest: Manifest) -> list[EncodeUnit]:
    """Return the shards of a data set that a cache lacks."""
    return [EncodeUnit(shard, manifest.rows_of(shard)) for shard in folder.missing(manifest)]


def _collect(
    outcomes: Iterator[EncodeOutcome],
    units: Sequence[EncodeUnit],
    manifest: Manifest,
    report: EncodeReport,
    on_progress: Report,
) -> list[str]:
    """Add outcomes to the report as they arrive; return the reasons of shards without entries."""
    total = sum(len(manifest.rows_of(unit.shard)) for unit in units)
    done, failures, rate, steps = 0, list[str](), Rate(), Counter(report.steps)
    on_progress(0, total)
    for unit, outcome in zip(units, outcomes, strict=True):
        done += len(manifest.rows_of(unit.shard))
        rate.add(done)
        steps.update(outcome.seconds)
        report.encoded += not outcome.failure
        report.clips += outcome.clips
        report.windows += outcome.windows
        report.references += outcome.references
        report.bytes += outcome.bytes
        report.bad |= outcome.bad
        if outcome.failure:
            failures.append(f"{manifest.shards[unit.shard].file}: {outcome.failure}")
        speed = "" if rate.per_second is None else f", {rate.per_second:.2f} clips/s"
        on_progress(done, total, f"{report.windows} windows, {report.bytes / 1e9:.2f} GB{speed}")
    report.steps = dict(steps)
    return failures


@contextlib.contextmanager
def _writing(folder: Location) -> Iterator[None]:
    """Hold the lock of a cache on a disk, and remove what a killed process left unfinished there."""
    if folder.local is None:
        yield
        return
    busy = f"{folder}: another process encodes into this cache; wait for it"
    with exclusive(folder.local / LOCK, busy=busy):
        for path in folder.local.glob(f"{UNFINISHED}*"):
            path.unlink(missing_ok=True)
        yield


def _remove_damaged(folder: CacheFolder) -> None:
    """Remove the files whose content has changed."""
    for file in folder.files().values():
        path = folder.location / file.name
        try:
            verify_entries(path, file)
        except UserError:
            path.delete()
