"""The work of a pair run: every input once, in units whose content depends on data, recipe and seed alone.

A unit is sampled as one batch and committed as one shard. Its members depend neither on the number of workers nor on
earlier work, so a killed run continues with the same units and builds the same pairs, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdub.config import Recipe, identity_without_paths, network_digests
from xdub.data.decisions import DECISIONS, REVIEW, rejected_clips
from xdub.data.duplicates import Copy, read_duplicates
from xdub.data.ledger import LedgerRow
from xdub.data.manifest import Manifest
from xdub.data.shards import speakers_of, twins_of
from xdub.files.storage import locate
from xdub.pairs.audio_choice import Choice, SpeechIndex, Utterance
from xdub.screen.duplicates import MOST_BITS
from xdub.seeding import stable_seed

GENERATED, TWIN = "generated", "twin"
"""Kinds of pairs: V' from the generator, or the rendered twin of V."""
COPY, LONE = "duplicate", "other_utterance"
"""Checks that a clip fails before any pair is built of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The columns of a data set's row that planning needs."""

    clip_id: str
    speaker: str
    num_frames: int
    twin_of: str | None
    copy_of: str | None = None
    """The earlier clip that shows the same footage."""
    unfit: bool = False
    """True if a person rejected the clip's masks (`xdub.data.decisions`)."""
    likeness: float = 0.0
    """Share of equal bits of sound of the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairJob:
    """One input of the ledger, and the pair to build from it."""

    key: str
    """Name in the ledger: the clip id, followed by "+" and the twin's id for an exact pair."""
    kind: str
    """`GENERATED` or `TWIN`."""
    row: int
    """Row of V in the data set."""
    pair_id: str
    """Hash, 16 hex digits, of everything that decides the pair's content."""
    choices: tuple[tuple[int, Choice], ...] = ()
    """(row, choice) of the possible speech of a generated V', best first."""
    twin_row: int | None = None
    """Row of V' in the data set, for an exact pair."""


@dataclass(frozen=True)
class Unit:
    """Jobs that are sampled together."""

    number: int
    jobs: tuple[PairJob, ...]


def read_entries(manifest: Manifest) -> list[Entry]:
    """Return the columns of the manifest that planning needs, for all rows; no shard of this version is opened."""
    columns = (manifest.ids, speakers_of(manifest), manifest.num_frames, twins_of(manifest))
    copies = read_duplicates(manifest.folder)
    unfit = rejected_clips(locate(manifest.folder) / DECISIONS)
    entries = []
    for clip_id, speaker, frames, twin in zip(*columns, strict=True):
        copy = copies.get(clip_id, Copy(None, 0.0))
        entries.append(
            Entry(
                clip_id=clip_id,
                speaker=speaker,
                num_frames=frames,
                twin_of=twin,
                copy_of=copy.original,
                unfit=clip_id in unfit,
                likeness=copy.value,
            )
        )
    return entries


def excluded_rows(entries: Sequence[Entry], recipe: Recipe) -> list[LedgerRow]:
    """Return the ledger rows of clips of which no generated pair is built: rejected masks, copies, lone utterances.

    A copy shows the footage of an earlier clip. V' needs the speech of another utterance of the same speaker (B.3),
    unless ``pairs.require_other_utterance`` is off. A recipe of exact pairs alone excludes no clip.
    """
    if recipe.pairs.render_twins >= 1:
        return []
    utterances = Counter(entry.speaker for entry in entries if entry.copy_of is None)
    rows: list[LedgerRow] = []

    def reject(entry: Entry, check: str, message: str, value: float = 0.0, threshold: float = 1.0) -> None:
        rows.append(
            LedgerRow(
                input=entry.clip_id,
                status="rejected",
                check=check,
                value=value,
                threshold=threshold,
                message=message,
            )
        )

    for entry in entries:
        if entry.unfit:
            reject(entry, REVIEW, f"its masks are rejected in {DECISIONS}")
        elif (copy_of := entry.copy_of) is not None:
            reject(entry, COPY, f"shows the same footage as clip {copy_of}", entry.likeness, 1 - MOST_BITS)
        elif recipe.pairs.require_other_utterance and utterances[entry.speaker] < 2:
            message = f"{entry.speaker} has no other utterance; `xdub speakers` looks for one in all files"
            reject(entry, LONE, message)
    return rows


def plan_units(entries: Iterable[Entry], recipe: Recipe, *, generator_digest: str, seed: int) -> list[Unit]:
    """Plan all units of a run. Exact pairs come first because they need no generator."""
    entries = list(entries)
    rows = {entry.clip_id: row for row, entry in enumerate(entries)}
    index = SpeechIndex(
        Utterance(clip_id=e.clip_id, speaker=e.speaker, num_frames=e.num_frames)
        for e in entries
        if e.copy_of is None
    )
    excluded = {row.input for row in excluded_rows(entries, recipe)}
    facts = json.dumps([generator_digest, seed, deciding_sections(recipe)], sort_keys=True)
    generated = []
    for row, entry in enumerate(entries):
        if entry.clip_id in excluded:
            continue
        target = Utterance(clip_id=entry.clip_id, speaker=entry.speaker, num_frames=entry.num_frames)
        choices = index.choices(target, seed)
        generated.append(
            PairJob(
                key=entry.clip_id,
                kind=GENERATED,
                row=row,
                pair_id=_pair_id(GENERATED, entry.clip_id, [[c.clip_id, c.start] for c in choices], facts),
                choices=tuple((rows[c.clip_id], c) for c in choices),
            )
        )
    twins = _twin_jobs(entries, rows, recipe.pairs.render_twins, len(generated), facts, seed)
    if recipe.pairs.render_twins >= 1:
        generated = []
    batches = [*_batches(twins, recipe.pairs.batch), *_batches(generated, recipe.pairs.batch)]
    return [Unit(number, tuple(jobs)) for number, jobs in enumerate(batches)]


def _twin_jobs(
    entries: list[Entry], rows: dict[str, int], share: float, num_generated: int, facts: str, seed: int
) -> list[PairJob]:
    """Plan exact pairs of rendered twins, in both directions, up to their share of all pairs."""
    both = []
    for row, entry in enumerate(entries):
        other = rows.get(entry.twin_of or "")
        if other is not None and other != row and entries[other].num_frames == entry.num_frames:
            both += [(row, other), (other, row)]
    both = sorted(
        set(both), key=lambda pair: stable_seed("twin", seed, *(entries[row].clip_id for row in pair))
    )
    count = len(both) if share >= 1 else round(share / (1 - share) * num_generated)
    jobs = []
    for row, twin_row in both[:count]:
        clip_id, twin_id = entries[row].clip_id, entries[twin_row].clip_id
        pair_id = _pair_id(TWIN, clip_id, [twin_id], facts)
        jobs.append(
            PairJob(key=f"{clip_id}+{twin_id}", kind=TWIN, row=row, pair_id=pair_id, twin_row=twin_row)
        )
    return jobs


def _pair_id(kind: str, clip_id: str, others: list, facts: str) -> str:
    """Hash everything that decides the pair's content to 16 hex digits."""
    return hashlib.sha256(json.dumps([kind, clip_id, others, facts]).encode()).hexdigest()[:16]


SECTIONS = ("video", "codec", "audio", "model", "pairs", "perception")
"""Sections of a recipe that decide how a pair looks and whether it is kept."""


def deciding_sections(recipe: Recipe) -> dict:
    """Return `SECTIONS` of a recipe.

    Networks are known by content, so their folder may move: ``networks`` has their digests, if there are any.
    """
    networks = network_digests(recipe, ("pairs",))
    raw = identity_without_paths(recipe)
    return {name: raw[name] for name in SECTIONS} | ({"networks": networks} if networks else {})


def located_sections(recipe: Recipe) -> dict:
    """Return `SECTIONS` as earlier versions recorded them, with the networks' locations in place of their content."""
    raw = recipe.identity()
    return {name: raw[name] for name in SECTIONS}


def _batches(jobs: list[PairJob], size: int) -> list[list[PairJob]]:
    return [jobs[n : n + size] for n in range(0, len(jobs), size)]
