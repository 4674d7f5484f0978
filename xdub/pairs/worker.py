"""What one worker does with a unit: read, generate, composite, judge, relight, encode (paper 3.1.2, B.3)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xdub.config import Recipe, recipe_from_dict
from xdub.data.clip import Clip, to_row
from xdub.data.shards import LedgerRow, ShardReader, read_manifest
from xdub.dub.tracks import Track, generate
from xdub.dub.window_sampler import WindowSampler
from xdub.errors import UserError
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.codec import load_codec
from xdub.pairs.audio_choice import OWN_SHIFTED, Choice, cut_audio
from xdub.pairs.composite import composite
from xdub.pairs.filters import Verdict, judge
from xdub.pairs.generator import load_generator
from xdub.pairs.judged import judged_row
from xdub.pairs.judges import Judges, load_judges
from xdub.pairs.relight import draw_light, is_uniformly_lit, relight
from xdub.pairs.seams import seam_scores, seams
from xdub.pairs.units import TWIN, Job, Unit
from xdub.seeding import rng


@dataclass
class Outcome:
    """What a unit became: one entry a job, in the unit's order."""

    unit: int
    rows: list[dict[str, Any] | None] = field(default_factory=list)
    """Encoded pair (`to_row`), or None if it was not kept."""
    ledger: list[LedgerRow] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """By step: read, sample, judge, encode."""


@dataclass
class _Task:
    """A job on its way."""

    job: Job
    clip: Clip | None = None
    speech: np.ndarray | None = None
    choice: Choice | None = None
    reference: np.ndarray | None = None
    true_landmarks: np.ndarray | None = None
    error: Exception | None = None


class PairWorker:
    """Generator, codec, audio encoder and judges, resident; one unit at a time."""

    def __init__(
        self,
        recipe: Recipe | dict[str, Any],
        generator: str | Path,
        data: str | Path,
        *,
        seed: int,
        device: str | None = None,
        threads: int | None = None,
        judges: Judges | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.recipe = recipe if isinstance(recipe, Recipe) else recipe_from_dict(recipe)
        self.seed, self.name = seed, socket.gethostname()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        codec = load_codec(self.recipe.codec).to(device)
        self.audio_encoder = load_audio_encoder(self.recipe.audio)
        dit = load_generator(self.recipe, generator, codec, device)
        pairs = self.recipe.pairs
        self.sampler = WindowSampler(
            dit,
            codec,
            num_steps=pairs.sampler_steps,
            shift=pairs.sampler_shift,
            solver=pairs.solver,
            compile_for=pairs.batch if pairs.compile else None,
        )
        self.judges = judges or load_judges(self.recipe.perception, device)
        self.reader = ShardReader(read_manifest(data))

    def run(self, unit: Unit) -> Outcome:
        """All pairs of the unit. A job that fails gets a ledger row and does not hurt the others."""
        outcome, clock = Outcome(unit.number), _Clock()
        tasks = [_Task(job) for job in unit.jobs]
        for task in tasks:
            _guarded(task, self._read)
        clock.lap("read")
        self._sample([task for task in tasks if task.error is None and task.job.kind != TWIN])
        clock.lap("sample")
        sampling = clock.seconds["sample"] / max(1, len(tasks))
        for task in tasks:
            begin = time.perf_counter()
            row, entry = self._finish(task)
            seconds = round(sampling + time.perf_counter() - begin, 3)
            outcome.rows.append(row)
            outcome.ledger.append(replace(entry, worker=self.name, seconds=seconds))
        clock.lap("judge")
        outcome.seconds = clock.seconds
        return outcome

    def _read(self, task: _Task) -> None:
        job = task.job
        task.clip = self.reader.clip(job.row)
        if job.kind == TWIN:
            twin = self.reader.clip(job.twin_row)
            task.reference, task.true_landmarks = twin.frames, twin.landmarks
            return
        for row, choice in job.choices:
            speech = self._speech(row, task.clip, choice)
            if speech is not None:
                task.speech = cut_audio(speech, choice.start, task.clip.num_frames)
                task.choice = choice
                return

    def _speech(self, row: int, clip: Clip, choice: Choice) -> np.ndarray | None:
        """The chosen speech; None if it is the clip's own recording after all, or cannot be read (another will do)."""
        if choice.rule == OWN_SHIFTED:
            return clip.audio
        try:
            speech = self.reader.clip(row).audio
        except UserError:
            return None  # its own row of the ledger says so
        return None if _same(speech, clip.audio) else speech

    def _sample(self, tasks: list[_Task]) -> None:
        pairs = self.recipe.pairs
        tracks = [
            Track(
                frames=task.clip.frames,
                features=self.audio_encoder.encode(task.speech),
                noise=("pair", self.seed, task.clip.clip_id),
                hidden=task.clip.visible_mask,
            )
            for task in tasks
        ]
        generated = generate(
            tracks,
            self.sampler,
            window=pairs.segment_frames,
            motion=pairs.motion_frames,
            batch=max(1, len(tracks)),
        )
        for task, frames in zip(tasks, generated, strict=True):
            clip = task.clip
            task.reference = composite(
                clip.frames, frames, clip.face_mask, clip.occluder_mask, pairs.feather_px
            )

    def _finish(self, task: _Task) -> tuple[dict[str, Any] | None, LedgerRow]:
        verdict = scores = None
        if task.error is None:
            verdict, scores = _guarded(task, self._judge) or (None, None)
        if verdict is None:
            message = " ".join(f"{type(task.error).__name__}: {task.error}".split())[:300]
            return None, LedgerRow(input=task.job.key, status="failed", check="error", message=message)
        rule = task.choice.rule if task.choice else task.job.kind
        told = f"speech={rule}" + (f" from={task.choice.clip_id}" if task.choice else "")
        entry = judged_row(task.job.key, task.job.pair_id, verdict, scores, told)
        return to_row(self._pair(task, scores)) if verdict.kept else None, entry

    def _judge(self, task: _Task) -> tuple[Verdict, dict[str, float]]:
        verdict, scores = judge(
            task.clip,
            task.reference,
            embed=self.judges.embed,
            read_mouth=self.judges.read_mouth,
            identity_threshold=self.recipe.pairs.identity_threshold,
            mouth_threshold=self.recipe.pairs.mouth_threshold,
            true_landmarks=task.true_landmarks,
        )
        if task.job.kind != TWIN:
            pairs = self.recipe.pairs
            joints = seams(task.clip.num_frames, pairs.segment_frames, pairs.motion_frames)
            scores |= seam_scores(task.reference, task.clip.visible_mask, joints)
        return verdict, scores

    def _pair(self, task: _Task, scores: dict[str, float]) -> Clip:
        """The row of the pair: V is the target, V' the reference; both in new light if it is their turn."""
        clip, reference = task.clip, task.reference
        draw = rng("relight", self.seed, task.job.pair_id)
        if draw.uniform() < self.recipe.pairs.relight and is_uniformly_lit(clip.frames, clip.occluder_mask):
            light = draw_light(draw)
            clip = replace(clip, frames=relight(clip.frames, light))
            reference = relight(reference, light)
            scores = scores | {"relit": 1.0}
        source = f"pair:{task.job.kind}:{clip.source}"
        return replace(clip, clip_id=task.job.pair_id, source=source, reference=reference, scores=scores)


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def _guarded(task: _Task, step: Callable[[_Task], Any]) -> Any:
    """The step's result; what it raises is kept for the ledger, where every input ends."""
    try:
        return step(task)
    except Exception as error:
        task.error = error
        return None


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    length = min(len(one), len(other))
    return np.array_equal(one[:length], other[:length])
