from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from xdub.bootstrap import bootstrap, stage_names
from xdub.bootstrap.model_folder import same_bundle, write_bundle
from xdub.config import PHASES, expert_of, load_recipe
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.train.show.progress import PhaseProgress


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple]:
    """Training and pair making stand-ins that only leave their exports; what was asked of them, in order.

    Beside them the data sets `clips` and `others`.
    """
    asked: list[tuple] = []
    for name in ("clips", "others"):
        with ShardWriter(tmp_path / name) as writer:
            writer.add(make_clip(0, num_frames=25))

    def train_phase(phase, recipe, data, out, *, resume, init_from, local, progress):
        asked.append(
            (phase, Path(data).name, init_from and Path(init_from).relative_to(Path(init_from).parents[2]))
        )
        assert resume
        export = out / phase / "export"
        export.mkdir(parents=True, exist_ok=True)
        name = "model" if expert_of(phase) is None else "adapter"
        (export / f"{name}.safetensors").write_bytes(phase.encode())
        state = {"loss": 0.5, "steps_per_second": 2.0, "eta_seconds": 0.0}
        progress(PhaseProgress(phase=phase, step=1, steps=1, **state))
        return SimpleNamespace(status="finished")

    def build_pairs(recipe, generator, data, out, *, workers, local, on_progress, tracked_in):
        assert tracked_in == out.parent
        # Pairs are made where the training runs, and nowhere else.
        assert workers.most == recipe.train.workers
        assert list(workers.resources) == [each for each in [recipe.train.resource] if each]
        asked.append(("pairs", Path(generator).parent.name, Path(data).name))

    monkeypatch.setattr("xdub.train.run.train_phase", train_phase)
    monkeypatch.setattr("xdub.pairs.build.build_pairs", build_pairs)
    return asked


def test_the_stages_run_in_order_each_on_what_the_ones_before_it_made(calls: list, tmp_path: Path) -> None:
    seen = []
    recipe = load_recipe("tiny", ["train.workers=2", "train.resource=train"])
    bundle = bootstrap(
        recipe,
        tmp_path / "clips",
        tmp_path / "run",
        on_stage=lambda stage, number, total: seen.append((stage.name, number, total)) or (lambda *_: None),
    )
    assert [name for name, _, _ in seen] == list(stage_names(recipe)) and seen[-1][1:] == (6, 6)
    assert [call[:2] for call in calls] == [
        ("generator", "clips"), ("pairs", "generator"), ("editor", "pairs"), ("lip", "pairs"), ("texture", "pairs"),
    ]  # fmt: skip
    # Without other weights the editor goes on from the generator; everything else starts from nothing.
    assert calls[0][2] is None and calls[2][2] == Path("run/generator/export") and calls[3][2] is None
    assert {p.name for p in bundle.iterdir()} == {
        "recipe.yaml",
        *(f"{phase}.safetensors" for phase in PHASES),
    }
    assert load_recipe(bundle / "recipe.yaml") == recipe


def _model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for phase in PHASES:
        (folder / f"{phase}.safetensors").touch()
    return folder


def test_with_a_model_to_start_from_every_phase_starts_from_its_own_part(calls: list, tmp_path: Path) -> None:
    bootstrap(
        load_recipe("tiny"), tmp_path / "clips", tmp_path / "run", init=_model(tmp_path / "a" / "bundle")
    )
    starts = [str(call[2]) for call in calls if call[0] != "pairs"]
    assert starts == [f"a/bundle/{phase}.safetensors" for phase in PHASES]


def test_a_folder_continues_only_what_was_begun_in_it(calls: list, tmp_path: Path) -> None:
    bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    for recipe, data, word in (
        (load_recipe("tiny", ["seed=1"]), "clips", "another recipe"),
        (load_recipe("tiny"), "others", "another data"),
    ):
        with pytest.raises(UserError, match=word):
            bootstrap(recipe, tmp_path / data, tmp_path / "run")
    (tmp_path / "run" / "bootstrap.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")


def test_a_mistaken_choice_is_told_at_once_and_not_remembered(calls: list, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "pairs") as writer:
        writer.add(make_clip(0, num_frames=25, pair=True))
    with ShardWriter(tmp_path / "short") as writer:
        writer.add(make_clip(0, num_frames=21))
    no_lip = _model(tmp_path / "no_lip")
    (no_lip / "lip.safetensors").unlink()
    for data, init, words in (
        ("nowhere", None, "not a data set"),
        ("pairs", None, "holds pairs; a bootstrap begins with clips"),
        ("short", None, "none of 1 clips has 25 frames"),
        ("clips", no_lip, "has no lip.safetensors"),
    ):
        with pytest.raises(UserError, match=words):
            bootstrap(load_recipe("tiny"), tmp_path / data, tmp_path / "run", init=init)
    assert not calls and not (tmp_path / "run").exists()


def test_weights_of_the_last_phase_are_asked_for_before_the_first(calls: list, tmp_path: Path) -> None:
    for settings, words in (
        (["perception.sync=syncnet"], "perception.sync=syncnet needs perception.sync_path"),
        (["perception.features=clip"], "perception.features=clip needs perception.features_path"),
        (["perception.identity=arcface", "perception.identity_path=/none.pth"], "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            bootstrap(load_recipe("tiny", settings), tmp_path / "clips", tmp_path / "run")
    assert not calls and not (tmp_path / "run").exists()


def test_a_run_that_was_asked_to_stop_stops_the_journey(
    calls: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdub.train.run.train_phase", lambda *_, **__: SimpleNamespace(status="stopped"))
    with pytest.raises(KeyboardInterrupt):
        bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    assert not calls


def test_a_bundle_is_replaced_when_a_phase_was_trained_on(tmp_path: Path) -> None:
    recipe = load_recipe("tiny")
    with pytest.raises(UserError, match="train the phase generator first"):
        write_bundle(tmp_path, recipe, tmp_path / "bundle")
    export = tmp_path / "generator" / "export"
    export.mkdir(parents=True)
    (export / "model.safetensors").write_bytes(b"one")
    write_bundle(tmp_path, recipe, tmp_path / "bundle", ("generator",))
    assert same_bundle(tmp_path, tmp_path / "bundle", ("generator",))
    (export / "model.safetensors").write_bytes(b"two")
    assert not same_bundle(tmp_path, tmp_path / "bundle", ("generator",))
    write_bundle(tmp_path, recipe, tmp_path / "bundle", ("generator",))
    assert (tmp_path / "bundle" / "generator.safetensors").read_bytes() == b"two"
    assert not list(tmp_path.glob(".bundle*"))
