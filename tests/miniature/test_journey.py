"""The production path as a whole: real videos to a scored dub with Ray Train, two workers, ZeRO-2 and bf16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf.system.mini import RECIPES, Journey
from xdub.config import load_recipe
from xdub.data.ledger import Ledger
from xdub.files.run_folder import RunFolder
from xdub.files.tensors import read_shapes


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    journey = Journey(tmp_path_factory.mktemp("mini"))
    journey.prepare()
    return journey


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_miniature_of_the_production_path_runs_from_videos_to_a_scored_dub(
    journey: Journey, name: str
) -> None:
    journey.run(name)
    run = RunFolder(journey.folder / f"run-{name}")
    recipe = load_recipe(run.bundle / "recipe.yaml")
    expected = ("xdub", "wan", "bf16") if name == "mini" else ("wan", "wan2.2", "bf16")
    assert (recipe.model.kind, recipe.codec.kind, recipe.train.precision) == expected
    assert recipe.train.zero_stage == 2
    for phase in recipe.phase_names:
        result = json.loads(run.phase(phase).result.read_text())
        assert result["step"] == recipe.for_phase(phase).steps
        assert (result["facts"]["world_size"], result["facts"]["precision"]) == (2, "bf16")
        # The relative folder of weights is known by content in every worker.
        networks = {"codec", "audio"} | ({"base", "prompt"} if name == "mini-wan" else set())
        assert networks <= result["facts"]["networks"].keys()
    assert {row.status for row in Ledger(run.pairs).rows()} == {"kept"}
    assert journey.scores[name]["frames"] == 45
    stages = [row["stage"] for row in journey.rows if row["recipe"] == name]
    assert stages[-3:] == ["bootstrap", "dub", "eval score"] and len(stages) == 9
    if name == "mini-wan":
        # The weights of a phase are its adapter and the layers that the open weights lack.
        names = read_shapes(run.bundle / "editor.safetensors")
        assert any(".lora_" in name for name in names) and "patch_embedding.weight" not in names
        _moved_weights_continue_and_others_are_refused(journey.folder, run)


def _moved_weights_continue_and_others_are_refused(folder: Path, run: RunFolder) -> None:
    from xdub.bootstrap import bootstrap
    from xdub.errors import UserError

    (folder / "w").rename(folder / "elsewhere")
    settings = [f"weights={folder / 'elsewhere'}", *RECIPES["mini-wan"]]
    bootstrap(load_recipe("mini-wan", settings), folder / "ds", run.path)
    (folder / "elsewhere" / "arcface.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=r"arcface.pth|another identity network"):
        bootstrap(load_recipe("mini-wan", settings), folder / "ds", run.path)
