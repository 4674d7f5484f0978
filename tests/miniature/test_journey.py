"""The production path as a whole: real videos to a scored dub with Ray Train, two workers, ZeRO-2 and bf16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf.system.mini import CODECS, Journey
from xdub.config import load_recipe
from xdub.data.ledger import Ledger
from xdub.files.run_folder import RunFolder


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    journey = Journey(tmp_path_factory.mktemp("mini"))
    journey.prepare()
    return journey


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_the_miniature_of_the_production_path_runs_from_videos_to_a_scored_dub(
    journey: Journey, codec: str
) -> None:
    journey.run(codec)
    run = RunFolder(journey.folder / f"run-{codec}")
    recipe = load_recipe(run.bundle / "recipe.yaml")
    assert (recipe.codec.kind, recipe.train.precision, recipe.train.zero_stage) == (codec, "bf16", 2)
    for phase in recipe.phase_names:
        result = json.loads(run.phase(phase).result.read_text())
        assert result["step"] == recipe.for_phase(phase).steps
        assert (result["facts"]["world_size"], result["facts"]["precision"]) == (2, "bf16")
        # The relative folder of weights is known by content in every worker.
        assert {"codec", "audio"} <= result["facts"]["networks"].keys()
    assert {row.status for row in Ledger(run.pairs).rows()} == {"kept"}
    assert journey.scores[codec]["frames"] == 45
    stages = [row["stage"] for row in journey.rows if row["codec"] == codec]
    assert stages[-3:] == ["bootstrap", "dub", "eval score"] and len(stages) == 9
    if codec == "wan2.2":
        _moved_weights_continue_and_others_are_refused(journey.folder, run)


def _moved_weights_continue_and_others_are_refused(folder: Path, run: RunFolder) -> None:
    from xdub.bootstrap import bootstrap
    from xdub.errors import UserError

    (folder / "w").rename(folder / "elsewhere")
    settings = [f"weights={folder / 'elsewhere'}", *CODECS["wan2.2"]]
    bootstrap(load_recipe("mini", settings), folder / "ds", run.path)
    (folder / "elsewhere" / "arcface.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=r"arcface.pth|another identity network"):
        bootstrap(load_recipe("mini", settings), folder / "ds", run.path)
