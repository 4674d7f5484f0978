"""One real step of every phase, a pair and a dubbed window, by the code that runs on the cluster."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from xdub.config import EXPERTS, RANDOM, Recipe, in_model, inpaints, needs_pairs, phase_facts
from xdub.data.latent_cache.folder import reads_cache, required_caches
from xdub.data.transforms import crop_boxes
from xdub.doctor.clips import drawn_clip, write_clips
from xdub.doctor.rehearsal import Rehearsal, experts_at
from xdub.doctor.rows import Examiner, NotRun
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder, RunFolder

LATENTS = "latents"
"""Row of the cached latents."""
OPEN_WEIGHTS = "open weights"
"""Row of the random weights that replace the recipe's open weights."""


class StageChecks:
    """The stages of a bootstrap in a temporary run folder.

    A phase whose predecessor failed starts from random weights.
    """

    def __init__(self, rehearsal: Rehearsal, examiner: Examiner, failed: set[str], folder: Path) -> None:
        self.rehearsal, self.examiner, self.failed = rehearsal, examiner, failed
        self.recipe, self.folder, self.run_folder = rehearsal.small, folder, RunFolder(folder / "run")

    def run(self) -> None:
        """Run all stages, and a step of a SyncNet, which is no part of a bootstrap."""
        self.examiner.part = "stages"
        if not self.examiner.check("clips", self.clips):
            self.failed.add("clips")
        if self._cached() and not self.examiner.check(LATENTS, self.latents):
            self.failed.add(LATENTS)
        stand_in = self.rehearsal.stand_in
        if stand_in is not None and not self.examiner.check(
            OPEN_WEIGHTS, lambda: self.open_weights(stand_in)
        ):
            self.failed.add(OPEN_WEIGHTS)
        for name in self.recipe.phase_names:
            self._phase(name)
            if phase_facts(name).inpaints:
                self.examiner.check("pair", self.pair)
        self._phase("syncnet")
        self.examiner.check("dub", self.dub)

    def clips(self) -> str:
        """Write clips and pairs as shards, with their videos, and read them back."""
        frames, words = self.rehearsal.frames, []
        for name in ("clips", "pairs"):
            folder = write_clips(self.folder / name, self.recipe, frames, pairs=name == "pairs")
            size = sum(file.stat().st_size for file in folder.iterdir())
            words.append(f"2 {name} of {frames} frames, {self.recipe.video.size} px, {size / 1e3:.0f} kB")
        return "; ".join(words)

    def latents(self) -> str:
        """Encode the clips and pairs for the phases that read cached latents."""
        from xdub.encode import encode_latents

        self._require("codec", "audio", "clips")
        words = []
        for name in ("clips", "pairs"):
            phases = [phase for phase in self._cached() if needs_pairs(phase) == (name == "pairs")]
            if phases:
                report = encode_latents(self.recipe, self.folder / name, phases=phases, local=True)
                words.append(f"{report.windows} windows of {name}, {report.bytes / 1e6:.1f} MB")
        return "; ".join(words)

    def _cached(self) -> list[str]:
        """Return the phases that read cached latents."""
        return [name for name in self.recipe.phase_names if reads_cache(self.recipe, name)]

    def open_weights(self, file: Path) -> str:
        """Write random weights of the rehearsed size with the tensors that the recipe's open weights have."""
        from xdub.files.tensors import write_tensors
        from xdub.model.build import build_backbone

        phase = next(name for name in self.recipe.phase_names if in_model(name) and not inpaints(name))
        # A network without open weights is initialised at random.
        unstarted = replace(self.recipe, model=replace(self.recipe.model, base=RANDOM))
        model = build_backbone(unstarted, phase, seed=0)
        tensors = {name: value for name, value in model.state_dict().items() if not model.addition(name)}
        write_tensors(tensors, file)
        size = f"{self.recipe.model.num_layers} blocks of width {self.recipe.model.hidden_size}"
        return f"random weights replace the {self.rehearsal.recipe.model.num_layers} blocks: {size}"

    def _phase(self, name: str) -> None:
        def step() -> str:
            encoders = ("codec", "audio", OPEN_WEIGHTS) if in_model(name) else ("codec",)
            if name in self._cached():
                encoders += (LATENTS,)
            self._require(*encoders, "clips", *phase_facts(name).networks)
            return self.phase(name)

        self.examiner.check(name, step)

    def phase(self, name: str) -> str:
        """Train a phase for one step: data, losses, backward, optimizer, checkpoint, export."""
        from xdub.train.rank import TrainJob, run_locally

        facts, before = phase_facts(name), None
        if facts.starts_from is not None:
            weights = self.run_folder.phase(facts.starts_from).export / "model.safetensors"
            before = str(weights) if weights.is_file() else None
        folder = PhaseFolder(self.run_folder.path, name)
        folder.path.mkdir(parents=True)
        data = self.folder / ("pairs" if needs_pairs(name) else "clips")
        job = TrainJob(
            folder=folder.resolved(),
            recipe=self.recipe,
            data=(str(data.resolve()),),
            base=before if facts.expert else None,
            init_from=None if facts.expert else before,
            caches=required_caches(self.recipe, name, [data]),
        )
        run_locally(job)
        values = _metrics(folder)
        value, gradient = values.get("train/loss", math.nan), values.get("grad_norm", 0.0)
        if not (math.isfinite(value) and gradient > 0):
            raise UserError(
                f"the step trains nothing: loss {value:.3g}, gradient {gradient:.3g}; another train.precision or "
                "train.seed shows whether the numbers or a network are the cause"
            )
        start = f", from {facts.starts_from}" if before else ""
        return f"{self._size(name)}{start}: loss {value:.3g}, gradient {gradient:.3g}"

    def pair(self) -> str:
        """Build the pairs of two clips with the trained generator, and judge them."""
        from xdub.pairs.factory import build_pairs
        from xdub.pairs.generator_model import generator_file

        if not any(map(inpaints, self.recipe.phase_names)):
            raise NotRun("the recipe trains no generator")
        self._require("codec", "audio", "judges", "clips")
        export = self.run_folder.phase("generator").export
        if not export.is_dir():
            raise NotRun("needs the generator, whose step failed")
        generator_file(export)
        report = build_pairs(self.recipe, export, self.folder / "clips", self.run_folder.pairs, local=True)
        if report.counts["failed"]:
            raise UserError(f"pairs failed: {_first_failure(self.run_folder.pairs)}")
        window, steps = self.recipe.pairs.segment_frames, self.recipe.pairs.sampler_steps
        sizes = f"{report.inputs} clips in windows of {window} frames, {steps} steps"
        return f"{sizes}: {report.counts} (an untrained generator rarely passes)"

    def dub(self) -> str:
        """Dub a window of a drawn video with the trained editor and its experts, loaded from a model folder."""
        from xdub.dub.dub import build_dubber
        from xdub.dub.face_runs import FaceRun
        from xdub.model.bundle import exported_weights, load_bundle, write_bundle

        self._require("codec", "audio")
        recipe = self.rehearsal.recipe
        phases = [
            name for name in self.recipe.phase_names if exported_weights(self.run_folder, name).is_file()
        ]
        if not exported_weights(self.run_folder, "editor").is_file():
            raise NotRun("needs the editor, whose step failed")
        _check_bands(recipe)
        bundle = load_bundle(
            write_bundle(self.run_folder, self.recipe, self.run_folder.bundle, phases), self.rehearsal.device
        )
        window, size = self.recipe.dub.window, self.recipe.video.size
        clip = drawn_clip(size, window, 1)
        margin = size // 4
        pictures = np.pad(clip.frames, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
        landmarks = clip.landmarks + margin
        run = FaceRun(
            start=0, boxes=crop_boxes(landmarks, scale=recipe.video.crop_scale), landmarks=landmarks
        )
        frames = list(build_dubber(bundle, "editor", clip.audio, seed=0).frames(pictures, [run]))
        if len(frames) != window or any(frame.shape != pictures[0].shape for frame in frames):
            raise UserError(f"a dub of {window} frames has {len(frames)}")
        experts = " and ".join(bundle.experts)
        names = f" with the expert{'s' * (len(bundle.experts) > 1)} {experts}" if experts else ""
        steps = f"{self.recipe.dub.sampler_steps} {self.recipe.dub.solver} steps"
        return f"{window} frames of {size} px in {steps}{names}"

    def _require(self, *roles: str) -> None:
        """Raise NotRun if one of the roles failed."""
        failed = [role for role in roles if role in self.failed]
        if failed:
            raise NotRun(f"needs {' and '.join(failed)}, see above")

    def _size(self, name: str) -> str:
        window, train = self.recipe.window(name), self.recipe.for_phase(name)
        size = f"{window} frames, micro batch {train.micro_batch}, {train.precision}, ZeRO {train.zero_stage}"
        tuned = train.tune == "adapter" and in_model(name)
        return f"{size}, adapter on {train.base_dtype or train.precision}" if tuned else size


def _check_bands(recipe: Recipe) -> None:
    """Raise UserError for an expert that no step of the recipe's sampler would run."""
    steps = recipe.dub.sampler_steps
    experts = [name for name in EXPERTS if name in recipe.phases]
    idle = [f"dub.{name}_band" for name in experts if name not in experts_at(recipe, steps)]
    if idle:
        raise UserError(
            f"dub.sampler_steps={steps} has no step inside {' and '.join(idle)}, so the expert would never run; "
            "raise the steps or widen the band"
        )


def _metrics(folder: PhaseFolder) -> dict[str, float]:
    """Return the metrics of the phase's last step."""
    values: dict[str, float] = {}
    for line in read_lines(folder.journal):
        if line["kind"] == "metrics":
            values |= line["values"]
    return values


def _first_failure(folder: Path) -> str:
    """Return the message of the first failed row of a pair ledger."""
    from xdub.data.ledger import Ledger

    return next((row.message for row in Ledger(folder).rows() if row.status == "failed"), "no message")
