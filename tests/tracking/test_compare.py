"""Comparison of tracked runs: tables, charts, messages."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import cv2
import pytest

from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.tracking.compare import compare_runs, print_comparison, short_names
from xdub.tracking.sink import MlflowSink


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two run folders in one MLflow file, as training writes them; they differ in learning rate and losses."""
    root = tmp_path_factory.mktemp("runs")
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{RunFolder(root).database}")
        for name, lr in (("slow", 1e-4), ("fast", 1e-3)):
            out = root / name
            out.mkdir()
            for phase in ("generator", "editor"):
                sink = MlflowSink(RunFolder(out), phase)
                values = [
                    (
                        s,
                        {
                            "loss/flow": 1 / (1 + s * lr * 100),
                            "train/loss": 2.0,
                            "loss/flow/t_bin_2": float(s),
                            "loss/flow/t_bin_7": 1.0,
                        },
                    )
                    for s in range(0, 31, 10)
                ]
                records = [{"kind": "metrics", "step": s, "time_ms": s, "values": v} for s, v in values]
                params = {
                    "train": {"lr": 0.5, "steps": 30},
                    "resolved": {"lr": lr, "steps": 30},
                    "phases": {"lip": {"alpha": lr}, phase: {"alpha": 4.0, "lr": lr}},
                }
                sink([{"kind": "params", "values": params}, *records])
            folders[name] = out
    return folders


def test_folders_are_compared_phase_by_phase(folders: dict[str, Path], tmp_path: Path) -> None:
    result = compare_runs([str(folders["slow"]), str(folders["fast"])], out=None)
    assert [group.title for group in result.groups] == ["generator", "editor"]
    group = result.groups[0]
    assert group.params == {"train.lr": ["0.0001", "0.001"]}
    assert group.names == ["slow/generator", "fast/generator"]
    assert [float(value) for value in group.metrics["loss/flow"]] == pytest.approx([1 / 1.3, 1 / 4], rel=1e-3)


def test_the_page_and_the_picture_show_both_curves(folders: dict[str, Path], tmp_path: Path) -> None:
    result = compare_runs([str(folders["slow"]), str(folders["fast"])], out=tmp_path / "c.html")
    html = result.html.read_text()
    charts = re.findall(r'<svg class="chart".*?</svg>', html)
    phases, losses, losses_by_band = 2, 2, 1
    assert len(charts) == phases * (losses + losses_by_band)
    assert all("stroke: var(--accent)" in chart and "stroke: var(--generator)" in chart for chart in charts)
    assert "<script" not in html and "src=" not in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert cv2.imread(str(result.png)).std() > 5


def test_a_loss_by_noise_band_is_the_mean_of_the_last_quarter(folders: dict[str, Path]) -> None:
    group = compare_runs([folders["slow"], folders["fast"]]).groups[0]
    banded = group.charts[-1]
    assert banded.y_label == "loss/flow"
    assert banded.lines == [([0.25, 0.75], [30.0, 1.0])] * 2
    assert not any("t_bin" in name for name in group.metrics)


def test_a_parents_id_stands_for_its_phases_and_an_address_replaces_the_folders(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = json.loads(RunFolder(folders["slow"]).state.read_text())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", state["tracking_uri"])
    (group,) = compare_runs([state["parent"]]).groups
    assert [run.phase for run in group.runs] == ["generator", "editor"]
    assert [run.run_id for run in group.runs] == list(state["phases"].values())
    with pytest.raises(UserError, match="none.db is gone"):
        compare_runs([folders["slow"], folders["fast"]], uri="sqlite:////nowhere/none.db")


def test_a_missing_server_is_reported_within_seconds(folders: dict[str, Path]) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match="MLflow at http://127.0.0.1:9 does not return it"):
        compare_runs([folders["slow"], folders["fast"]], uri="http://127.0.0.1:9")
    assert time.monotonic() - begin < 30


def test_one_folder_compares_its_phases_and_a_phase_can_be_named(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    (group,) = compare_runs([str(folders["slow"])], out=tmp_path / "c.html").groups
    assert group.names == ["generator", "editor"]
    names = [str(folders["slow"] / "editor"), str(folders["fast"] / "generator")]
    (group,) = compare_runs(names, out=tmp_path / "c.html").groups
    assert group.names == ["slow/editor", "fast/generator"]


def test_the_mlflow_command_names_the_store_and_all_runs(folders: dict[str, Path], tmp_path: Path) -> None:
    ui = compare_runs([str(folders["slow"])], out=tmp_path / "c.html").ui
    ids = json.loads(RunFolder(folders["slow"]).state.read_text())["phases"].values()
    assert "mlflow ui --backend-store-uri sqlite:///" in ui and all(run_id in ui for run_id in ids)
    assert re.search(r"http://127\.0\.0\.1:5000/#/compare-runs\?runs=\[", ui)


def test_an_error_about_a_missing_run_lists_the_valid_choices(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    slow = str(folders["slow"])
    (tmp_path / "text.db").write_text("hello " * 1000)
    uri = json.loads(RunFolder(folders["slow"]).state.read_text())["tracking_uri"]
    for names, options, message in (
        (["nowhere", slow], {}, "no run 'nowhere'.*FOLDER/PHASE"),
        ([f"{slow}/texture", slow], {}, "no tracked phase 'texture'; it has generator, editor"),
        ([f"{slow}/editor"], {}, "only one tracked run"),
        (["deadbeef", slow], {"uri": uri}, "run deadbeef"),
        (["deadbeef", slow], {"uri": f"sqlite:///{tmp_path}/none.db"}, "is gone"),
        (["deadbeef", slow], {"uri": f"sqlite:///{tmp_path}/text.db"}, "not a database"),
        (["deadbeef", slow], {"uri": "nope://x"}, "unsupported URI"),
    ):
        with pytest.raises(UserError, match=message):
            compare_runs(names, out=tmp_path / "out.html", **options)
    assert not (tmp_path / "out.html").exists() and not (tmp_path / "none.db").exists()


def test_the_terminal_shows_tables_and_an_unbroken_address(
    folders: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    result = compare_runs([folders["slow"], folders["fast"]])
    print_comparison(result)
    text = capsys.readouterr().out
    assert "train.lr" in text and "0.001" in text and result.ui in text and result.html is None


def test_short_names_drop_shared_folders_but_are_never_empty() -> None:
    assert short_names(["a/b/x/editor", "a/b/y/editor"]) == ["x/editor", "y/editor"]
    assert short_names(["a", "a"]) == ["a", "a"]
