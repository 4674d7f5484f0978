"""The work on one unit of pairs: read, generate, composite, judge, relight, encode (paper 3.1.2, B.3)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from xdub.config import Recipe, recipe_from_dict
from xdub.data.clip import Clip, to_row
from xdub.data.clip_checks import MIN_SOUND, Rejected, check_sound, sound_level
from xdub.data.ledger import LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.outcome import Outcome
from xdub.data.shard_files import write_shard
from xdub.data.shards import ShardReader
from xdub.data.sound import MARGIN_SAMPLES
from xdub.dub.tracks import Track
from xdub.errors import UserError
from xdub.files.storage import Location
from xdub.pairs.audio_choice import OWN_SHIFTED, Choice, cut_audio
from xdub.pairs.composite import composite
from xdub.pairs.filters import Verdict, judge
from xdub.pairs.judges import Judges, load_judges
from xdub.pairs.maker import load_maker
from xdub.pairs.relight import draw_light, is_uniformly_lit, relight
from xdub.pairs.seams import seam_scores
from xdub.pairs.units import TWIN, PairJob, Unit
from xdub.pool.worker import StepTimer
from xdub.precision import open_device
from xdub.seeding import rng

Result = TypeVar("Result")


@dataclass
class _Request:
    """A job's clip V, and the speech to dub onto V'."""

    clip: Clip
    speech: np.ndarray
    """float32 [640 (F + 50)], with the second before and after it"""
    choice: Choice


@dataclass
class _Candidate:
    """V and V' before the filters."""

    clip: Clip
    reference: np.ndarray
    """V', uint8 [F,H,W,3]"""
    message: str
    """Origin of the speech, for the ledger."""
    true_landmarks: np.ndarray | None = None
    """[F,68,2] of V', for exact pairs."""


class PairWorker:
    """Generator or editor, codec, audio encoder and judges in memory; processes one unit at a time."""

    def __init__(
        self,
        recipe: Recipe | dict[str, Any],
        generator: str | Path,
        data: str | Path | Location,
        out: Location,
        *,
        seed: int,
        device: str | None = None,
        threads: int | None = None,
        judges: Judges | None = None,
    ) -> None:
        """Load all networks; the arguments are those of `xdub.pairs.factory.build_pairs`."""
        if threads is not None:
            torch.set_num_threads(threads)
        self.recipe = recipe if isinstance(recipe, Recipe) else recipe_from_dict(recipe)
        self.seed, self.name = seed, socket.gethostname()
        opened = open_device(device)
        self.maker = load_maker(self.recipe, generator, opened)
        self.judges = judges or load_judges(self.recipe.perception, opened)
        self.reader = ShardReader(read_manifest(data))
        self._out = out

    def run(self, unit: Unit) -> Outcome:
        """Build all pairs of the unit and write them as one shard; the outcome has one ledger row a job.

        A job that fails gets a ledger row and does not affect the others. The steps are read, sample, judge, write.
        """
        outcome, timer = Outcome(number=unit.number), StepTimer()
        rows = []
        inputs = [_attempt(self._read, job) for job in unit.jobs]
        timer.lap("read")
        generated = iter(self._sample([item for item in inputs if isinstance(item, _Request)]))
        candidates = [next(generated) if isinstance(item, _Request) else item for item in inputs]
        timer.lap("sample")
        sampling = timer.seconds["sample"] / max(1, len(unit.jobs))
        for job, candidate in zip(unit.jobs, candidates, strict=True):
            begin = time.perf_counter()
            row, entry = self._finish(job, candidate)
            seconds = round(sampling + time.perf_counter() - begin, 3)
            rows += [] if row is None else [row]
            outcome.ledger.append(replace(entry, worker=self.name, seconds=seconds))
        timer.lap("judge")
        if rows:
            outcome.shards.append(write_shard(self._out, rows))
        timer.lap("write")
        outcome.seconds = dict(timer.seconds)
        return outcome

    def _read(self, job: PairJob) -> _Request | _Candidate:
        """Read V, and the twin of an exact pair or the speech of a generated one."""
        clip = self.reader.clip(job.row)
        if job.twin_row is not None:
            twin = self.reader.clip(job.twin_row)
            return _Candidate(clip, twin.frames, f"speech={job.kind}", twin.landmarks)
        # Data sets of earlier versions may hold silent clips.
        check_sound(clip.audio)
        for row, choice in job.choices:
            speech = self._speech(row, clip, choice)
            if speech is not None:
                return _Request(clip, speech, choice)
        raise UserError(f"clip {clip.clip_id}: no speech for V'")

    def _speech(self, row: int, clip: Clip, choice: Choice) -> np.ndarray | None:
        """Cut the chosen speech, with its surroundings, to the clip's length.

        Return None if it is the clip's own, silent or unreadable.
        """
        if choice.rule == OWN_SHIFTED:
            return cut_audio(clip.sound, choice.start, clip.num_frames)
        try:
            other = self.reader.clip(row)
        except UserError:
            # The unreadable clip is an input too, and fails in a ledger row of its own.
            return None
        cut = cut_audio(other.sound, choice.start, clip.num_frames)
        silent = sound_level(cut[MARGIN_SAMPLES:-MARGIN_SAMPLES]) < MIN_SOUND
        return None if silent or _same(other.audio, clip.audio) else cut

    def _sample(self, requests: list[_Request]) -> list[_Candidate]:
        """Generate V' for all requests as one batch."""
        masked, feather = self.maker.sampler.masked, self.recipe.pairs.feather_px
        tracks = [
            Track(
                frames=request.clip.frames,
                sound=request.speech,
                noise=("pair", self.seed, request.clip.clip_id),
                hidden=request.clip.visible_mask if masked else None,
            )
            for request in requests
        ]
        generated = self.maker.make(tracks)
        candidates = []
        for request, frames in zip(requests, generated, strict=True):
            clip, choice = request.clip, request.choice
            reference = composite(clip.frames, frames, clip.face_mask, clip.occluder_mask, feather)
            candidates.append(_Candidate(clip, reference, f"speech={choice.rule} from={choice.clip_id}"))
        return candidates

    def _finish(
        self, job: PairJob, candidate: _Candidate | Exception
    ) -> tuple[dict[str, Any] | None, LedgerRow]:
        """Judge a candidate; return the encoded pair if it is kept, and its ledger row."""
        if isinstance(candidate, Exception):
            return None, _row_without_pair(job, candidate)
        result = _attempt(self._judge, job, candidate)
        if isinstance(result, Exception):
            return None, _row_without_pair(job, result)
        verdict, scores = result
        entry = verdict.ledger_row(job.key, job.pair_id, scores, candidate.message)
        return to_row(self._pair(job, candidate, scores)) if verdict.kept else None, entry

    def _judge(self, job: PairJob, candidate: _Candidate) -> tuple[Verdict, dict[str, float]]:
        clip, pairs = candidate.clip, self.recipe.pairs
        verdict, scores = judge(
            clip,
            candidate.reference,
            embed=self.judges.embed,
            read_mouth=self.judges.read_mouth,
            identity_threshold=self.recipe.identity_threshold,
            mouth_threshold=pairs.mouth_threshold,
            true_landmarks=candidate.true_landmarks,
        )
        if job.kind != TWIN:
            joints = self.maker.seams(clip.num_frames)
            scores |= seam_scores(candidate.reference, clip.visible_mask, joints)
        return verdict, scores

    def _pair(self, job: PairJob, candidate: _Candidate, scores: dict[str, float]) -> Clip:
        """Return the pair as a clip: V is the target, V' the reference; a share of the pairs is relit."""
        clip, reference = candidate.clip, candidate.reference
        draw = rng("relight", self.seed, job.pair_id)
        if draw.uniform() < self.recipe.pairs.relight and is_uniformly_lit(clip.frames, clip.occluder_mask):
            light = draw_light(draw)
            clip = replace(clip, frames=relight(clip.frames, light))
            reference = relight(reference, light)
            scores = scores | {"relit": 1.0}
        source = f"pair:{job.kind}:{clip.source}"
        # An editor's reference is V' alone.
        return replace(
            clip, clip_id=job.pair_id, source=source, reference=reference, references=None, scores=scores
        )


def failed_unit(unit: Unit, reason: str) -> Outcome:
    """Return the outcome of a unit whose workers died: every job fails."""
    rows = [LedgerRow(input=job.key, status="failed", check="worker", message=reason) for job in unit.jobs]
    return Outcome(number=unit.number, ledger=rows)


def _attempt(step: Callable[..., Result], *arguments: Any) -> Result | Exception:
    """Return the result of a step, or the error it raised, which ends in the ledger."""
    try:
        return step(*arguments)
    except Exception as error:
        return error


def _row_without_pair(job: PairJob, error: Exception) -> LedgerRow:
    """Return the ledger row of a job without a pair."""
    if isinstance(error, Rejected):
        return error.row(job.key, job.pair_id)
    message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return LedgerRow(input=job.key, status="failed", check="error", message=message)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return True if one recording begins with the other."""
    length = min(len(one), len(other))
    return np.array_equal(one[:length], other[:length])
