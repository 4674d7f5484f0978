"""The stages of a bootstrap run in order, continue, and refuse inputs that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from xdub.bootstrap import bootstrap, bootstrap_stages, stage_names
from xdub.config import PHASES, expert_of, load_recipe
from xdub.data.latent_cache.folder import required_caches
from xdub.data.ledger import Counts
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.run_folder import EXPORT, PhaseFolder, RunFolder
from xdub.miniature import write_miniature
from xdub.model.bundle import same_bundle, write_bundle
from xdub.pairs.factory import PairReport
from xdub.tracking.provenance import data_summary
from xdub.train.show.step_progress import PhaseProgress


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple]:
    """Replace training and generation of pairs by functions that only write exports; return their calls in order.

    The folder also has the data sets `clips` and `others`.
    """
    requests: list[tuple] = []
    counts = Counts(kept=8)
    for seed, name in enumerate(("clips", "others")):
        with ShardWriter(tmp_path / name) as writer:
            writer.add(make_clip(seed, num_frames=25))

    def train_phase(phase, recipe, data, out, *, resume, init_from, local, progress):
        requests.append(
            (phase, Path(data).name, init_from and Path(init_from).relative_to(Path(init_from).parents[2]))
        )
        assert resume
        export = PhaseFolder(out, phase).export
        export.mkdir(parents=True, exist_ok=True)
        name = "model" if expert_of(phase) is None else "adapter"
        (export / f"{name}.safetensors").write_bytes(phase.encode())
        state = {"loss": 0.5, "steps_per_second": 2.0, "eta_seconds": 0.0}
        progress(PhaseProgress(phase=phase, step=1, steps=1, **state))
        return SimpleNamespace(status="finished")

    def build_pairs(recipe, generator, data, out, *, workers, local, on_progress, tracked_in):
        assert tracked_in == out.parent
        # Pairs are generated only on the machines that train.
        assert workers.most == recipe.train.workers
        assert list(workers.resources) == [each for each in [recipe.train.resource] if each]
        requests.append(("pairs", Path(generator).parent.name, Path(data).name))
        return PairReport(inputs=8, counts=counts, seconds=1.0, steps={})

    monkeypatch.setattr("xdub.train.run.train_phase", train_phase)
    monkeypatch.setattr("xdub.pairs.factory.build_pairs", build_pairs)
    return requests


def test_the_stages_run_in_order_each_on_the_results_of_earlier_ones(calls: list, tmp_path: Path) -> None:
    started = []
    recipe = load_recipe("tiny", ["train.workers=2", "train.resource=train"])
    bundle = bootstrap(
        recipe,
        tmp_path / "clips",
        tmp_path / "run",
        on_stage=lambda stage, number, total: (
            started.append((stage.name, number, total)) or (lambda *_: None)
        ),
    )
    assert [name for name, _, _ in started] == list(stage_names(recipe)) and started[-1][1:] == (6, 6)
    assert [call[:2] for call in calls] == [
        ("generator", "clips"), ("pairs", "generator"), ("editor", "pairs"), ("lip", "pairs"), ("texture", "pairs"),
    ]  # fmt: skip
    # Without other weights the editor starts from the generator, and every other phase from new weights.
    assert calls[0][2] is None and calls[2][2] == Path("run", "generator", EXPORT) and calls[3][2] is None
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


def test_clips_are_encoded_before_the_phase_that_reads_their_latents(calls: list, tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["phases.generator.latents=cached"])
    assert stage_names(recipe)[:3] == ("clip-latents", "generator", "pairs")
    cached = stage_names(load_recipe("tiny", ["train.latents=cached"]))
    assert cached[2:5] == ("pairs", "pair-latents", "editor")
    for stage in bootstrap_stages(recipe, tmp_path / "clips", tmp_path / "run", local=True)[:2]:
        stage.run(lambda *_: None)
    assert [name for name, *_ in calls] == ["generator"]
    assert required_caches(recipe, "generator", [tmp_path / "clips"])


def test_with_an_initial_model_every_phase_starts_from_its_own_weights(calls: list, tmp_path: Path) -> None:
    bootstrap(
        load_recipe("tiny"), tmp_path / "clips", tmp_path / "run", init=_model(tmp_path / "a" / "bundle")
    )
    starts = [str(call[2]) for call in calls if call[0] != "pairs"]
    assert starts == [f"a/bundle/{phase}.safetensors" for phase in PHASES]


def test_a_folder_continues_only_the_run_that_was_started_in_it(calls: list, tmp_path: Path) -> None:
    bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    # A remedy for an error of memory does not start the run again.
    settings = ["train.micro_batch=4", "phases.lip.activation_checkpointing=full", "pairs.offload=blocks"]
    settings += ["syncnet.steps=7", "train.max_rollbacks=5"]
    bootstrap(load_recipe("tiny", settings), tmp_path / "clips", tmp_path / "run")
    for recipe, data, word in (
        (load_recipe("tiny", ["seed=1"]), "clips", "another recipe"),
        (load_recipe("tiny", ["phases.lip.lr=1e-5"]), "clips", "another recipe"),
        (load_recipe("tiny"), "others", "another data"),
    ):
        with pytest.raises(UserError, match=word):
            bootstrap(recipe, tmp_path / data, tmp_path / "run")
    RunFolder(tmp_path / "run").bootstrap.write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")


def test_a_run_continues_after_its_folders_moved_and_its_data_grew(calls: list, tmp_path: Path) -> None:
    def start(box: Path, name: str = "clips") -> None:
        bootstrap(load_recipe("tiny"), box / name, box / "run", init=box / "model" / "bundle")

    _model(tmp_path / "a" / "model" / "bundle")
    for name in ("clips", "others"):
        (tmp_path / name).rename(tmp_path / "a" / name)
    start(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    start(tmp_path / "b")
    with ShardWriter(tmp_path / "b" / "clips") as writer:
        writer.add(make_clip(1, num_frames=25))
    start(tmp_path / "b")
    (tmp_path / "b" / "model" / "bundle" / "lip.safetensors").write_bytes(b"other")
    for name, words in (("clips", "another init;"), ("others", "another data, another init;")):
        with pytest.raises(UserError, match=words):
            start(tmp_path / "b", name)


def test_a_run_of_an_earlier_version_knows_its_data_by_path_and_by_the_summary_of_its_first_stage(
    calls: list, tmp_path: Path
) -> None:
    clips, run = tmp_path / "clips", RunFolder(tmp_path / "run")
    run.path.mkdir()
    record = {"recipe": load_recipe("tiny").to_dict(), "data": str(clips), "init": None}
    write_json(run.bootstrap, record)
    bootstrap(load_recipe("tiny"), clips, run.path)
    clips.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="another data"):
        bootstrap(load_recipe("tiny"), tmp_path / "moved", run.path)
    summary = run.phase("generator").data_summary
    write_json(summary, [data_summary(read_manifest(tmp_path / "moved"))])
    bootstrap(load_recipe("tiny"), tmp_path / "moved", run.path)
    with pytest.raises(UserError, match="another data"):
        bootstrap(load_recipe("tiny"), tmp_path / "others", run.path)


def test_a_wrong_input_is_refused_at_once_and_not_recorded(calls: list, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "pairs") as writer:
        writer.add(make_clip(0, num_frames=25, pair=True))
    with ShardWriter(tmp_path / "short") as writer:
        writer.add(make_clip(0, num_frames=21))
    no_lip = _model(tmp_path / "no_lip")
    (no_lip / "lip.safetensors").unlink()
    for data, init, words in (
        ("nowhere", None, "not a data set"),
        ("pairs", None, "holds pairs; a bootstrap starts from clips"),
        ("short", None, "none of 1 clips has 25 frames"),
        ("clips", no_lip, "has no lip.safetensors"),
    ):
        with pytest.raises(UserError, match=words):
            bootstrap(load_recipe("tiny"), tmp_path / data, tmp_path / "run", init=init)
    for setting, words in (
        ("base_dtype=int8", "train.base_dtype=int8: the phase editor trains all weights"),
        ("offload=blocks", "train.offload=blocks: the phase editor trains all weights"),
    ):
        recipe = load_recipe(
            "tiny", [f"phases.editor.{setting}", "phases.editor.activation_checkpointing=full"]
        )
        with pytest.raises(UserError, match=words):
            bootstrap(recipe, tmp_path / "clips", tmp_path / "run")
    assert not calls and not (tmp_path / "run").exists()


def test_missing_weights_of_the_last_phase_are_reported_before_the_first(calls: list, tmp_path: Path) -> None:
    for settings, words in (
        (["perception.sync=syncnet"], "perception.sync=syncnet needs its weights"),
        (["perception.features=clip"], "perception.features=clip needs its weights"),
        (["perception.identity=arcface", "perception.identity_path=/none.pth"], "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            bootstrap(load_recipe("tiny", settings), tmp_path / "clips", tmp_path / "run")
    assert not calls and not (tmp_path / "run").exists()


def test_a_request_to_stop_a_phase_stops_the_bootstrap(
    calls: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdub.train.run.train_phase", lambda *_, **__: SimpleNamespace(status="stopped"))
    with pytest.raises(KeyboardInterrupt):
        bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    assert not calls


def test_without_a_kept_pair_the_reasons_are_reported_before_the_editor_trains(
    calls: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts({"rejected": 7, "rejected:mouth": 2, "rejected:noise": 5, "failed": 1})
    result = PairReport(inputs=8, counts=counts, seconds=1.0, steps={})
    monkeypatch.setattr("xdub.pairs.factory.build_pairs", lambda *_, **__: result)
    with pytest.raises(
        UserError, match=r"pairs: none of 8 pairs was kept \(noise 5, mouth 2, failed 1\); see"
    ):
        bootstrap(load_recipe("tiny"), tmp_path / "clips", tmp_path / "run")
    assert [call[0] for call in calls] == ["generator"]


def test_a_bundle_is_replaced_after_a_phase_was_trained_further(tmp_path: Path) -> None:
    settings = [f"phases.{phase}=null" for phase in PHASES if phase != "editor"]
    recipe, run, bundle = load_recipe("tiny", settings), RunFolder(tmp_path), tmp_path / "bundle"
    with pytest.raises(UserError, match="train the phase editor first"):
        write_bundle(run, recipe, bundle)
    export = PhaseFolder(tmp_path, "editor").export
    export.mkdir(parents=True)
    (export / "model.safetensors").write_bytes(b"one")
    write_bundle(run, recipe, bundle)
    assert same_bundle(run, recipe, bundle)
    # A run that continues may change where its dubs keep the blocks.
    assert not same_bundle(run, load_recipe("tiny", [*settings, "dub.offload=blocks"]), bundle)
    (export / "model.safetensors").write_bytes(b"two")
    assert not same_bundle(run, recipe, bundle)
    write_bundle(run, recipe, bundle)
    assert (bundle / "editor.safetensors").read_bytes() == b"two"
    assert not list(tmp_path.glob(".bundle*"))


def test_a_bootstrap_continues_after_its_weights_moved_and_names_a_network_that_changed(
    calls: list, tmp_path: Path
) -> None:
    def start(weights: str) -> None:
        bootstrap(
            load_recipe("mini", [f"weights={tmp_path / weights}"]), tmp_path / "clips", tmp_path / "run"
        )

    folder = tmp_path / "w"
    write_miniature(load_recipe("mini"), folder)
    start("w")
    folder.rename(tmp_path / "moved")
    start("moved")
    (tmp_path / "moved" / "whisper" / "README.md").write_text("not a weight")
    start("moved")
    write_miniature(load_recipe("mini"), tmp_path / "other", seed=1)
    shutil.copytree(tmp_path / "other" / "whisper", tmp_path / "moved" / "whisper", dirs_exist_ok=True)
    with pytest.raises(UserError, match="was started with another audio network; continue"):
        start("moved")
