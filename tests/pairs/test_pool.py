"""The pool of pair workers writes the same shards for any number of workers, whenever one dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from perf.system.fake_cloud import FakeCloud
from xdub.config import Recipe
from xdub.data.ledger import Ledger
from xdub.data.manifest import read_manifest
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import RunFolder, StageFolder
from xdub.pairs.factory import PairReport, build_pairs
from xdub.pairs.judges import Judges
from xdub.pairs.testing import plain_judges
from xdub.pool import Workers

Models = tuple[Path, Recipe]


@pytest.mark.parametrize(("text", "least", "most"), [("1", 1, 1), ("4", 4, 4), ("0:8", 0, 8), ("2:2", 2, 2)])
def test_workers_are_a_number_or_a_range(text: str, least: int, most: int) -> None:
    assert Workers.parse(text) == Workers(least=least, most=most)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "3:1", "0:0", "1:2:3", "1.5"])
def test_other_numbers_of_workers_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=f"workers={text.replace('.', '[.]')}") as error:
        Workers.parse(text)
    assert "\n" not in str(error.value)


def build(
    models: Models, data: Path, out: Path, judges: Judges | None = None, most: int = 1, **others
) -> PairReport:
    folder, recipe = models
    workers = Workers(least=0, most=most)
    return build_pairs(recipe, folder, data, out, workers=workers, judges=judges or plain_judges(), **others)


def content(out: Path) -> dict[str, str]:
    return {shard.file: shard.sha256 for shard in read_manifest(out, verify=True).shards}


def ledger(out: Path) -> set[tuple]:
    rows = list(Ledger(out).rows())
    assert len({row.input for row in rows}) == len(rows)
    return {(row.input, row.status, row.clip_id, row.check, row.value) for row in rows}


@pytest.fixture(scope="module")
def alone(models, data, tmp_path_factory):
    """Build pairs with one worker, tracked, and yield their folder."""
    import ray

    out = tmp_path_factory.mktemp("alone")
    build(models, data, out, tracked_in=out, price=3.6)
    yield out
    ray.shutdown()


@pytest.mark.slow
def test_a_run_tracks_its_counts_speed_and_cost(alone: Path) -> None:
    import mlflow

    rows = list(Ledger(alone).rows())
    records = [r for r in read_lines(StageFolder(alone).journal) if r["kind"] == "metrics"]
    assert [r["step"] for r in records] == sorted({r["step"] for r in records})
    last = records[-1]["values"]
    kept = sum(row.status == "kept" for row in rows)
    assert (records[-1]["step"], last["pairs/kept"]) == (len(rows), kept)
    seconds = sum(row.seconds for row in rows)
    assert last["pairs/worker_seconds_per_kept"] == pytest.approx(seconds / kept)
    assert last["pairs/dollars_per_kept"] == pytest.approx(seconds / kept / 1000)
    client = mlflow.MlflowClient(f"sqlite:///{RunFolder(alone).database}")
    runs = client.search_runs([client.get_experiment_by_name("xdub").experiment_id])
    child = next(run for run in runs if run.data.tags.get("phase") == "pairs")
    assert child.info.status == "FINISHED" and child.data.metrics["pairs/kept"] == kept


@pytest.mark.slow
def test_the_unit_of_a_dead_worker_is_repeated_and_no_pair_changes(alone, models, data, tmp_path) -> None:
    marker = str(tmp_path / "killed")
    judges = plain_judges()

    def die_once(*arguments):
        import os
        import signal

        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return judges.embed(*arguments)

    states = []
    build(
        models,
        data,
        tmp_path / "out",
        judges=replace(judges, embed=die_once),
        most=2,
        on_progress=lambda done, total, text: states.append(text),
    )
    assert any("1 lost" in text for text in states)
    assert content(tmp_path / "out") == content(alone)
    assert ledger(tmp_path / "out") == ledger(alone)


@pytest.mark.slow
def test_inputs_that_kill_every_worker_fail_and_are_named(alone, models, data, tmp_path) -> None:
    judges = plain_judges()

    def die_at_the_shortest(frames, landmarks):
        import os
        import signal

        # The filters read two frames of the clip of seven frames.
        if len(frames) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return judges.embed(frames, landmarks)

    with pytest.raises(UserError, match="of 9 inputs failed, last .*: its worker died 3 times"):
        build(models, data, tmp_path, judges=replace(judges, embed=die_at_the_shortest))
    failed = [row for row in Ledger(tmp_path).rows() if row.status == "failed"]
    # A unit has three inputs.
    assert {row.check for row in failed} == {"worker"} and len(failed) == 3
    # With working networks the run continues.
    build(models, data, tmp_path)
    assert {row[:3] for row in ledger(tmp_path)} == {row[:3] for row in ledger(alone)}


SUBMITTED = """
import sys
from pathlib import Path
from xdub.config import load_recipe
from xdub.pairs.factory import build_pairs
from xdub.pool import Workers
from xdub.pairs.testing import plain_judges
folder, data, out = sys.argv[1:]
build_pairs(load_recipe(Path(folder) / "recipe.yaml"), folder, data, out, judges=plain_judges(),
            workers=Workers(least=0, most=2, resources={"pairgen": 1}))
"""


@pytest.mark.slow
def test_the_autoscaler_adds_and_removes_machines_and_replaces_one_that_crashes(
    alone, models, data, tmp_path
) -> None:
    """The test uses Ray's own autoscaler, and kills a machine at the first finished unit."""
    out = tmp_path / "out"
    with FakeCloud(tmp_path / "cloud", most=2, idle_seconds=3) as cloud:
        assert not cloud.machines()
        environment = os.environ | {"RAY_ADDRESS": cloud.address, "RAY_AUTH_MODE": "token"}
        command = [sys.executable, "-c", SUBMITTED, str(models[0]), str(data), str(out)]
        driver = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        end, most, crashed = time.monotonic() + 300, 0, False
        while driver.poll() is None and time.monotonic() < end:
            most = max(most, len(cloud.machines()))
            if not crashed and list(out.glob("shard-*.parquet")):
                cloud.crash()
                crashed = True
            time.sleep(0.1)
        assert driver.wait(timeout=10) == 0, driver.stderr.read() if driver.stderr else ""
        while cloud.machines() and time.monotonic() < end:
            time.sleep(0.2)
        assert not cloud.machines()
    assert most >= 1 and crashed
    assert content(out) == content(alone)
    assert ledger(out) == ledger(alone)
