"""Driver of `xdub speakers`: measures shards without a file, groups all clips, and records speakers and copies."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from xdub.config import EMBEDDERS, Recipe, located
from xdub.data.duplicates import Copy, add_duplicates, duplicate_parts, read_duplicates
from xdub.data.locks import SPEAKERS, locked
from xdub.data.manifest import Manifest, read_manifest
from xdub.data.manifest_files import assign_speakers, speaker_parts
from xdub.data.shards import speakers_of
from xdub.errors import UserError
from xdub.files.storage import Location, locate
from xdub.pool import WorkerPool, Workers
from xdub.progress import Report, ignore
from xdub.screen.duplicates import find_duplicates
from xdub.screen.footprint import Footprint
from xdub.screen.speakers import SpeakerGroups
from xdub.speakers.files import file_name, likeness_folder, read_measured
from xdub.speakers.worker import LikenessOutcome, LikenessWorker

GPU_SHARE = 0.1
"""Share of a GPU that a worker reserves; its networks are small, and most of its work is decoding on the CPU."""


@dataclass(kw_only=True)
class SpeakerReport:
    """Result of one call."""

    clips: int
    """Number of clips in the data set."""
    measured: int = 0
    """Clips that this call measured."""
    speakers: int = 0
    alone: int = 0
    """Clips whose speaker has no other utterance, duplicates aside; `xdub pairs` rejects them."""
    duplicates: int = 0
    """Clips that show the footage of an earlier clip."""
    bad: dict[str, str] = field(default_factory=dict)
    """Clip id -> reason why it could not be measured."""
    seconds: float = 0.0
    """Wall time."""


def group_clips(
    recipe: Recipe,
    data: str | Path,
    *,
    workers: int | Workers = 1,
    local: bool = False,
    on_progress: Report | None = None,
) -> SpeakerReport:
    """Group the clips of a data set by speaker, and find clips that repeat the footage of another.

    Shards that were measured by an earlier call are not read again. Clips keep their speakers when others are added.
    The speakers replace those of the manifest, and the shards do not change.

    Raises:
        UserError: the data set or a network is missing, or a shard could not be read; then all others were measured.
    """
    begin = time.monotonic()
    for parts in (speaker_parts(locate(data)), duplicate_parts(locate(data))):
        parts.remove_torn()
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"{manifest.folder} holds {manifest.kind}; speakers are grouped in the clips they were built from"
        )
    report = SpeakerReport(clips=len(manifest.ids))
    folder = likeness_folder(manifest, recipe)
    folder.make_folder()
    _measure(manifest, recipe, folder, data, workers, local, report, on_progress or ignore)
    speakers, footprints = _group(manifest, recipe, folder)
    copies = _copies(manifest, footprints)
    with locked(manifest.folder, SPEAKERS):
        _record(manifest, speakers, copies)
    utterances = Counter(
        speaker for clip_id, speaker in zip(manifest.ids, speakers, strict=True) if clip_id not in copies
    )
    report.speakers, report.duplicates = len(set(speakers)), len(copies)
    report.alone = sum(count for count in utterances.values() if count == 1)
    report.seconds = time.monotonic() - begin
    return report


def _measure(
    manifest: Manifest,
    recipe: Recipe,
    folder: Location,
    data: str | Path,
    workers: int | Workers,
    local: bool,
    report: SpeakerReport,
    on_progress: Report,
) -> None:
    """Measure the shards without a file, and add the results to the report."""
    present = folder.sizes()
    missing = [n for n in range(len(manifest.shards)) if file_name(manifest, n) not in present]
    if not missing:
        return
    text = str(data)
    pool = WorkerPool(
        LikenessWorker,
        {
            "recipe": located(recipe).to_dict(),
            "data": text if "://" in text else str(Path(text).resolve()),
            "folder": folder if folder.local is None else _absolute(folder),
            "threads": None if local else 1,
        },
        pool_of(workers),
        name="speakers",
        failed=lambda shard, reason: LikenessOutcome(shard=shard, failure=reason),
        local=local,
    )
    total = sum(len(manifest.rows_of(shard)) for shard in missing)
    done, failures = 0, []
    on_progress(0, total)
    for shard, outcome in zip(missing, pool.outcomes(missing), strict=True):
        done += len(manifest.rows_of(shard))
        report.measured += outcome.clips
        report.bad |= outcome.bad
        if outcome.failure:
            failures.append(f"{manifest.shards[shard].file}: {outcome.failure}")
        on_progress(done, total, text=manifest.shards[shard].file)
    if failures:
        raise UserError(
            f"{manifest.folder}: {len(failures)} shards could not be measured; first {failures[0]}"
        )


def pool_of(workers: int | Workers) -> Workers:
    """Return the size of the pool; a worker reserves `GPU_SHARE` of a GPU if the cluster has any."""
    size = workers if isinstance(workers, Workers) else Workers(least=workers, most=workers)
    return replace(size, gpu_share=GPU_SHARE)


def _group(manifest: Manifest, recipe: Recipe, folder: Location) -> tuple[list[str], list[Footprint]]:
    """Return speaker and footprint of every row; vectors are read shard by shard and not kept."""
    config = recipe.screen
    own = EMBEDDERS[recipe.perception.identity].same_speaker
    face = own if config.speaker_face is None else config.speaker_face
    groups = SpeakerGroups(face_threshold=face, voice_threshold=config.speaker_voice)
    numbers: list[int] = []
    footprints: list[Footprint] = []
    for shard in range(len(manifest.shards)):
        measured = {one.likeness.clip_id: one for one in read_measured(folder / file_name(manifest, shard))}
        for index in manifest.rows_of(shard):
            one = measured[manifest.ids[index]]
            numbers.append(groups.add(one.likeness))
            footprints.append(one.footprint)
    return [groups.names[number] for number in numbers], footprints


def _copies(manifest: Manifest, footprints: list[Footprint]) -> dict[str, Copy]:
    return {
        manifest.ids[one.clip]: Copy(manifest.ids[one.of], one.value) for one in find_duplicates(footprints)
    }


def _record(manifest: Manifest, speakers: list[str], copies: dict[str, Copy]) -> None:
    """Append the speakers and copies that differ from the recorded ones."""
    earlier = speakers_of(manifest)
    changed = [n for n, speaker in enumerate(speakers) if earlier[n] != speaker]
    if changed:
        assign_speakers(manifest.folder, [manifest.ids[n] for n in changed], [speakers[n] for n in changed])
    recorded = read_duplicates(manifest.folder)
    new = [(clip_id, copy) for clip_id, copy in copies.items() if recorded.get(clip_id) != copy]
    if new:
        add_duplicates(manifest.folder, new)


def _absolute(folder: Location) -> Location:
    """Return a folder on a disk as workers in other working directories open it."""
    assert folder.local is not None
    return locate(folder.local.resolve())
