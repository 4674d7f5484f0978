"""File names of a run, in the folder `--out` and in the folder of each stage. No other module spells them.

    OUT/run_state.json, mlflow.db, mlartifacts/, bootstrap.json, pairs/, bundle/
    OUT/<phase>/steps.jsonl, journal.jsonl, result.json, checkpoints/step00000100/, export/, samples/, ...

Existing runs have these names, so the names never change.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

EXPORT = "export"
"""Folder of a phase's weights, below the phase's folder."""
MODEL_WEIGHTS = "model.safetensors"
"""File of a phase's export that holds the whole network."""
ADAPTER_WEIGHTS = "adapter.safetensors"
"""File of a phase's export that holds the adapter of an expert."""
_CHECKPOINT = re.compile(r"step(\d{8,})")


class _Folder:
    """A folder that can be opened, joined and printed like its path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(self.path)


class RunFolder(_Folder):
    """The folder of a whole run (`--out`): one folder for each stage, and the files that the stages share."""

    def phase(self, name: str) -> PhaseFolder:
        """Folder of one phase."""
        return PhaseFolder(self.path, name)

    @property
    def state(self) -> Path:
        """Ids of the run and of its phases in the tracker."""
        return self.path / "run_state.json"

    @property
    def database(self) -> Path:
        """The tracker's own store, unless MLFLOW_TRACKING_URI names another one."""
        return self.path / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Folder of the files that :attr:`database` lists."""
        return self.path / "mlartifacts"

    @property
    def bootstrap(self) -> Path:
        """Recipe, data and weights that a bootstrap was started with."""
        return self.path / "bootstrap.json"

    @property
    def pairs(self) -> Path:
        """Data set that the generator of this run produced."""
        return self.path / "pairs"

    @property
    def bundle(self) -> Path:
        """Model folder that a bootstrap writes at its end."""
        return self.path / "bundle"


class StageFolder(_Folder):
    """A folder with a journal: of a phase, or of a set of pairs."""

    @property
    def journal(self) -> Path:
        """Everything that is sent to the tracker, see `xdub.tracking.journal`."""
        return self.path / "journal.jsonl"

    def offset(self, lane: str) -> Path:
        """Number of the journal's bytes that a lane has sent."""
        return self.path / f"journal.{lane}.offset"

    @property
    def offsets(self) -> list[Path]:
        """All offset files of the journal, those of lanes of other versions included."""
        return sorted(self.path.glob("journal*.offset"))

    @property
    def recipe_text(self) -> Path:
        """The recipe as YAML text."""
        return self.path / "recipe.yaml"

    @property
    def data_summary(self) -> Path:
        """Digest, size and shards of the data sets that the stage reads."""
        return self.path / "data.json"


class PhaseFolder(StageFolder):
    """OUT/<phase>: the folder of one phase of a run."""

    def __init__(self, out: str | Path, phase: str) -> None:
        super().__init__(Path(out) / phase)
        self.phase = phase

    @property
    def run(self) -> RunFolder:
        """The run that this phase belongs to."""
        return RunFolder(self.path.parent)

    def resolved(self) -> PhaseFolder:
        """The same folder by its absolute path."""
        return PhaseFolder(self.path.parent.resolve(), self.phase)

    @property
    def records(self) -> list[Path]:
        """Small files that every remote copy of the phase includes."""
        return [self.run.state, self.steps, self.journal, self.recipe, self.result, self.quarantine]

    @property
    def steps(self) -> Path:
        """Committed steps, see `xdub.train.state.committed_steps`."""
        return self.path / "steps.jsonl"

    @property
    def skipped(self) -> Path:
        """Batches that were not learned from, see `xdub.train.state.committed_steps`."""
        return self.path / "skipped.jsonl"

    @property
    def quarantine(self) -> Path:
        """Clips that could not be read, see `xdub.data.quarantine`."""
        return self.path / "quarantine.jsonl"

    @property
    def recipe(self) -> Path:
        """The recipe of the latest start."""
        return self.path / "recipe.json"

    @property
    def result(self) -> Path:
        """{phase, step, attempt, seconds, facts}; exists only when the phase has finished."""
        return self.path / "result.json"

    @property
    def attempts(self) -> Path:
        """{attempt, time, workers} of every worker group."""
        return self.path / "attempts.jsonl"

    @property
    def workers(self) -> Path:
        """{attempt, nodes: machine of each rank} of the latest worker group."""
        return self.path / "workers.json"

    @property
    def failures(self) -> Path:
        """{time, step of the newest checkpoint, failure} of every lost worker group."""
        return self.path / "failures.jsonl"

    @property
    def stop_request(self) -> Path:
        """Request to stop: while the file exists, all ranks checkpoint and end. The file holds the reason."""
        return self.path / "stop-requested"

    @property
    def lock(self) -> Path:
        """File that the process that trains the phase locks."""
        return self.path / ".lock"

    @property
    def ray(self) -> Path:
        """Ray Train's storage during an attempt."""
        return self.path / ".ray"

    def hang_report(self, rank: int) -> Path:
        """Stacks of a rank's threads, for a rank that starts now."""
        return self.path / f"hang-{time.strftime('%Y%m%dT%H%M%S')}-rank{rank}.txt"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, see `xdub.train.state.checkpoint`."""
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Folder of one checkpoint."""
        return self.checkpoints / f"step{step:08d}"

    def unfinished_checkpoint(self, step: int) -> Path:
        """Folder that becomes :meth:`checkpoint` once it is complete."""
        return self.checkpoints / f".writing-step{step:08d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoint folders, complete or not, the newest first."""
        if not self.checkpoints.is_dir():
            return []
        matches = (_CHECKPOINT.fullmatch(path.name) for path in self.checkpoints.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    @property
    def newest_step(self) -> int:
        """Step of the newest checkpoint folder, complete or not; 0 if there is none."""
        return next(iter(self.checkpoint_steps()), 0)

    @property
    def rollbacks(self) -> Path:
        """{step, cursor} of every return to a checkpoint: the weights of that step, later data."""
        return self.checkpoints / "rollbacks.jsonl"

    @property
    def export(self) -> Path:
        """Folder of the trained weights, see `xdub.train.state.export`."""
        return self.path / EXPORT

    @property
    def samples(self) -> Path:
        """Folder of the film strips."""
        return self.path / "samples"

    def sample(self, step: int) -> Path:
        """Film strip of one step."""
        return self.samples / f"step{step:08d}.png"

    def fetching(self, kind: str) -> Path:
        """Folder that holds a remote copy of a kind while it is fetched."""
        return self.path / f".fetching-{kind}"
