"""The production path as a whole, from real videos to a scored dub in bf16 and ZeRO-2.

The recipe `mini` runs as a user runs it, and Ray Train trains every phase with two workers. With open weights, Ray
Train trains the first phase; the other stages run in this process, because they differ from those of `mini` by their
networks alone.
"""

from __future__ import annotations

import contextlib
import io
import json

import pytest

from perf.system.mini import RECIPES, Journey
from xdub.bootstrap import bootstrap
from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.config import load_recipe
from xdub.data.ledger import Ledger
from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.files.tensor_headers import read_shapes


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    journey = Journey(tmp_path_factory.mktemp("mini"))
    journey.prepare()
    return journey


@pytest.mark.slow(seconds=150)
def test_the_miniature_of_the_production_path_runs_from_videos_to_a_scored_dub(journey: Journey) -> None:
    journey.run("mini")
    run = RunFolder(journey.folder / "run-mini")
    _run_is_complete(run, ("xdub", "wan", "bf16"), networks={"codec", "audio"})
    assert _world_sizes(run) == {"generator": 2, "editor": 2, "lip": 2, "texture": 2}
    assert journey.scores["mini"]["frames"] == 45
    stages = [row["stage"] for row in journey.rows if row["recipe"] == "mini"]
    assert stages[-3:] == ["bootstrap", "dub", "eval score"] and len(stages) == 9


@pytest.mark.slow(seconds=100)
def test_open_weights_are_tuned_from_videos_to_a_scored_dub(journey: Journey) -> None:
    name, folder = "mini-wan", journey.folder
    # Two threads of one process would wait for each other on a busy machine, ten times as long as they compute.
    others = [*RECIPES[name], "train.num_threads=1"]
    run, values = RunFolder(folder / f"run-{name}"), ["weights=w", *others]
    settings = [word for value in values for word in ("--set", value)]
    journey.xdub(name, "train generator", "--recipe", name, *settings, "--data", "ds", "--out", run.path.name)
    with contextlib.chdir(folder):
        bootstrap(load_recipe(name, values), "ds", run.path.name, local=True)
        source, speech = "talks/anna/a.mp4", "talks/anna/b.mp4"
        _xdub(
            "dub",
            "--video",
            source,
            "--audio",
            speech,
            "--out",
            "o.mp4",
            "--model",
            f"{run.path.name}/bundle",
        )
        scored = ["eval", "score", "--video", "o.mp4", "--reference", speech, "--source", source, "--json"]
        assert json.loads(_xdub(*scored))["frames"] == 45

    _run_is_complete(run, ("wan", "wan2.2", "bf16"), networks={"codec", "audio", "base", "prompt"})
    assert _world_sizes(run) == {"generator": 2, "editor": 1, "lip": 1, "texture": 1}
    # The weights of a phase are its adapter and the layers that the open weights lack.
    names = read_shapes(run.bundle / "editor.safetensors")
    assert any(".lora_" in name for name in names) and "patch_embedding.weight" not in names

    # Weights that moved continue a run, and others are refused.
    (folder / "w").rename(folder / "elsewhere")
    moved = load_recipe(name, [f"weights={folder / 'elsewhere'}", *others])
    bootstrap(moved, folder / "ds", run.path, local=True)
    (folder / "elsewhere" / "arcface.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=r"arcface.pth|another identity network"):
        bootstrap(moved, folder / "ds", run.path, local=True)


def _run_is_complete(run: RunFolder, kinds: tuple[str, str, str], *, networks: set[str]) -> None:
    """Check the recipe, the result of every phase, and the pairs of a bootstrap."""
    recipe = load_recipe(run.bundle / "recipe.yaml")
    assert (recipe.model.kind, recipe.codec.kind, recipe.train.precision) == kinds
    assert recipe.train.zero_stage == 2
    for phase in recipe.phase_names:
        result = json.loads(run.phase(phase).result.read_text())
        assert result["step"] == recipe.for_phase(phase).steps
        assert result["facts"]["precision"] == "bf16"
        # The relative folder of weights is known by content in every worker.
        assert networks <= result["facts"]["networks"].keys()
    rows = list(Ledger(run.pairs).rows())
    # In some pictures of a generator of four steps no mouth is found.
    assert {row.check for row in rows if row.status != "kept"} <= {"mouths_found"}
    assert any(row.status == "kept" for row in rows)


def _world_sizes(run: RunFolder) -> dict[str, int]:
    """Return phase -> number of ranks that trained it."""
    phases = load_recipe(run.bundle / "recipe.yaml").phase_names
    return {phase: json.loads(run.phase(phase).result.read_text())["facts"]["world_size"] for phase in phases}


def _xdub(*arguments: str) -> str:
    """Run a command in this process and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run_app(app, list(arguments)) == 0
    return printed.getvalue()
