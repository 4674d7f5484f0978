"""File names of a run are those of all existing runs, and only one module spells them."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdub.files.run_folder import ADAPTER_WEIGHTS, MODEL_WEIGHTS, PhaseFolder, RunFolder, StageFolder

ROOT = Path(__file__).parents[2]

RUN = {
    "state": "run_state.json",
    "database": "mlflow.db",
    "artifacts": "mlartifacts",
    "bootstrap": "bootstrap.json",
    "pairs": "pairs",
    "bundle": "bundle",
}
STAGE = {"journal": "journal.jsonl", "recipe_text": "recipe.yaml", "data_summary": "data.json"}
PHASE = {
    "steps": "steps.jsonl",
    "skipped": "skipped.jsonl",
    "quarantine": "quarantine.jsonl",
    "recipe": "recipe.json",
    "result": "result.json",
    "attempts": "attempts.jsonl",
    "workers": "workers.json",
    "failures": "failures.jsonl",
    "stop_request": "stop-requested",
    "lock": ".lock",
    "ray": ".ray",
    "checkpoints": "checkpoints",
    "rollbacks": "checkpoints/rollbacks.jsonl",
    "export": "export",
    "samples": "samples",
}

SPELLED_ONCE = {
    *("run_state.json", "mlflow.db", "mlartifacts", "bootstrap.json", "journal.jsonl", "steps.jsonl"),
    *("skipped.jsonl", "quarantine.jsonl", "recipe.json", "attempts.jsonl", "workers.json", "failures.jsonl"),
    *("stop-requested", "rollbacks.jsonl", "checkpoints", "export"),
}
"""Names that have no other meaning in the repository."""

MAY_SPELL = {
    "xdub/files/run_folder.py",
    "tests/files/test_run_folder.py",
    # The kinds of remote copies have names of their own, which are folders of the remote.
    "xdub/train/remote/store.py",
    # This module also reads the folders of other commits.
    "perf/unchanged_digests.py",
    "tests/perf/test_unchanged.py",
    # This test quotes the shell's command `export`.
    "tests/test_docs_commands.py",
}


def test_the_names_are_those_of_every_earlier_run() -> None:
    run, stage, phase = RunFolder("out"), StageFolder("out/pairs"), PhaseFolder("out", "lip")
    for folder, names, root in (
        (run, RUN, "out"),
        (stage, STAGE, "out/pairs"),
        (phase, PHASE | STAGE, "out/lip"),
    ):
        assert {name: getattr(folder, name) for name in names} == {
            name: Path(root, file) for name, file in names.items()
        }
    assert (MODEL_WEIGHTS, ADAPTER_WEIGHTS) == ("model.safetensors", "adapter.safetensors")
    assert phase.checkpoint(100) == Path("out/lip/checkpoints/step00000100")
    assert phase.sample(100) == Path("out/lip/samples/step00000100.png")
    assert phase.offset("numbers") == Path("out/lip/journal.numbers.offset")
    assert phase.hang_report(3).match("out/lip/hang-*T*-rank3.txt")


def test_a_phase_folder_has_its_run_and_survives_a_pickle() -> None:
    folder = PhaseFolder("out", "editor")
    assert (folder.run, folder.phase, str(folder)) == (RunFolder("out"), "editor", "out/editor")
    assert RunFolder("out").phase("editor") == folder == pickle.loads(pickle.dumps(folder))
    assert folder != PhaseFolder("out", "lip") and folder != StageFolder("out/editor")


def test_checkpoint_steps_come_newest_first_and_ignore_unfinished_folders(tmp_path: Path) -> None:
    folder = PhaseFolder(tmp_path, "lip")
    assert folder.checkpoint_steps() == [] and folder.newest_step == 0
    for step in (2, 10, 4):
        folder.checkpoint(step).mkdir(parents=True)
    folder.unfinished_checkpoint(12).mkdir()
    assert folder.checkpoint_steps() == [10, 4, 2] and folder.newest_step == 10


def test_offsets_of_all_lanes_are_found_with_those_of_older_versions(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    files = [folder.offset("files"), folder.offset("numbers"), tmp_path / "journal.offset"]
    for path in [*files, folder.journal]:
        path.touch()
    assert folder.offsets == sorted(files)


def spelled_names(path: Path) -> Iterator[str]:
    """Yield the places where a file joins or quotes a name of `SPELLED_ONCE`."""
    tree = ast.parse(path.read_text("utf-8"))
    joined = {
        id(node.right)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split("/")
            names = set(parts) if id(node) in joined else {parts[-1]} if "." in parts[-1] else set()
            for name in names & SPELLED_ONCE:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {name}"


@pytest.mark.parametrize("top", ["xdub", "perf", "tests", "ray_jobs"])
def test_no_other_file_spells_a_name_of_a_run(top: str) -> None:
    paths = [path for path in (ROOT / top).rglob("*.py") if str(path.relative_to(ROOT)) not in MAY_SPELL]
    assert len(paths) > 4
    assert [line for path in paths for line in spelled_names(path)] == []
