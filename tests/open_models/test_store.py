"""Open models are downloaded into their folders, verified by hash and signature, and named where they are missing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.cli.weights import _fetch_command
from xdub.errors import UserError
from xdub.files.tensors import signature
from xdub.perception.open_models import store
from xdub.perception.open_models.entry import Licence, ModelFile, OpenModel
from xdub.perception.open_models.hub import HubFile
from xdub.perception.open_models.store import (
    fetch_model,
    list_models,
    required_folder,
    signature_problem,
    status_of_model,
)
from xdub.perception.open_models.table import OPEN_MODELS, open_model

SHAPES = {"blocks.0.q.weight": (3, 2), "blocks.0.q.bias": (3,)}
WEIGHTS = save({name: torch.zeros(shape) for name, shape in SHAPES.items()})
CONFIG = b'{"dim": 2}'


def entry(*, pinned: bool = True, shapes: dict | None = None) -> OpenModel:
    def file(name: str, content: bytes) -> ModelFile:
        digest = hashlib.sha256(content).hexdigest() if pinned else None
        source = HubFile(repo="team/model", file=name)
        return ModelFile(name=name, source=source, size=len(content), sha256=digest, exact=pinned)

    return OpenModel(
        role="toy",
        purpose="a test",
        licence=Licence(name="MIT", url="https://example.org"),
        files=(file("config.json", CONFIG), file("sub/w.safetensors", WEIGHTS)),
        signature=signature(shapes or SHAPES),
        signed=("sub/w.safetensors",),
        shapes=lambda: shapes or SHAPES,
    )


@pytest.fixture
def hub(server):
    server.files |= {
        "/team/model/resolve/main/config.json": CONFIG,
        "/team/model/resolve/main/sub/w.safetensors": WEIGHTS,
    }
    server.redirects = True
    return server


def test_a_model_is_downloaded_once_with_a_report_of_its_megabytes(hub, cache: Path) -> None:
    reports: list[tuple[float, float | None, str]] = []
    folder = fetch_model(
        entry(), report=lambda done, total=None, text="": reports.append((done, total, text))
    )
    assert folder == cache / "toy" and (folder / "sub" / "w.safetensors").read_bytes() == WEIGHTS
    assert status_of_model(entry()).state == "ok"
    assert any("sub/w.safetensors (2 of 2)" in text for _, _, text in reports)
    hub.requests.clear()
    assert fetch_model(entry()) == folder and hub.requests == []


@pytest.mark.parametrize("pinned", [True, False])
def test_a_byte_that_flipped_on_the_disk_is_found_and_the_file_fetched_again(hub, cache, pinned) -> None:
    model = entry(pinned=pinned)
    path = fetch_model(model) / "sub" / "w.safetensors"
    path.write_bytes(WEIGHTS[:-1] + b"\1")
    # Names, sizes and shapes are right; only the hash shows the damage, published or stated by the hub.
    assert status_of_model(model).state == "ok"
    status = status_of_model(model, hashed=True)
    assert status.state == "damaged" and "sub/w.safetensors is damaged" in status.problem
    fetch_model(model)
    assert path.read_bytes() == WEIGHTS and status_of_model(model, hashed=True).state == "ok"


def test_without_any_hash_a_damaged_header_is_fetched_again(hub, cache: Path) -> None:
    model = entry(pinned=False)
    folder = cache / "toy"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "sub" / "w.safetensors").write_bytes(WEIGHTS.replace(b"q.bias", b"k.bias"))
    assert "blocks.0.k.bias [3] is left over" in str(status_of_model(model).problem)
    fetch_model(model)
    assert (folder / "sub" / "w.safetensors").read_bytes() == WEIGHTS


def test_a_web_page_in_place_of_weights_is_fetched_again_although_its_hash_was_recorded(hub, cache) -> None:
    model, hub.redirects, hub.spoil = entry(pinned=False), False, lambda content: b"<html>" + content[6:]
    with pytest.raises(UserError, match="not a readable safetensors file"):
        fetch_model(model)
    hub.spoil = lambda content: content
    assert (fetch_model(model) / "sub" / "w.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_record_of_hashes_counts_as_none(hub, cache: Path) -> None:
    folder = fetch_model(entry(pinned=False))
    (folder / store.RECORD).write_text('{"config.json": 3}')
    assert status_of_model(entry(pinned=False), hashed=True).state == "ok"


@pytest.mark.parametrize("address", ["hub", "ftp://hub", "http://127.0.0.1:99999", "http://a b"])
def test_a_hub_at_no_web_address_is_refused(cache: Path, monkeypatch, address: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(UserError, match=f"HF_ENDPOINT={address}: is no web address"):
        fetch_model(entry())


@pytest.mark.parametrize(
    ("expected", "difference"),
    [
        (SHAPES | {"blocks.0.q.weight": (3, 4)}, "blocks.0.q.weight has shape [3, 2], not [3, 4]"),
        (SHAPES | {"blocks.0.k.bias": (3,)}, "blocks.0.k.bias [3] is missing"),
        ({"blocks.0.q.weight": (3, 2)}, "blocks.0.q.bias [3] is left over"),
    ],
)
def test_another_model_under_the_name_is_refused_with_the_first_differing_tensor(
    hub, cache, expected, difference
) -> None:
    with pytest.raises(UserError, match="are not those of toy") as caught:
        fetch_model(entry(shapes=expected))
    assert difference in str(caught.value)


@pytest.mark.parametrize("variable", [True, False])
def test_offline_a_missing_file_is_one_line_with_the_command(hub, cache, monkeypatch, variable) -> None:
    if variable:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"2 of 2 files of toy.*`xdub weights fetch toy` online") as caught:
        fetch_model(entry(), offline=not variable)
    assert "\n" not in str(caught.value) and hub.requests == []


def test_offline_a_complete_model_is_verified_without_the_network(hub, cache: Path) -> None:
    folder = fetch_model(entry())
    hub.requests.clear()
    assert fetch_model(entry(), offline=True) == folder and hub.requests == []


def test_a_second_process_does_not_write_into_the_same_folder(hub, cache: Path) -> None:
    from xdub.files.lock import exclusive

    (cache / "toy").mkdir(parents=True)
    with exclusive(cache / "toy" / ".lock"), pytest.raises(UserError, match="another process downloads toy"):
        fetch_model(entry())


def test_a_file_that_another_model_has_is_not_downloaded_again(hub, cache: Path, monkeypatch) -> None:
    first, second = entry(pinned=False), replace(entry(pinned=False), role="toy-2")
    monkeypatch.setattr(store, "OPEN_MODELS", (first, second))
    fetch_model(first)
    hub.requests.clear()
    folder = fetch_model(second)
    assert hub.requests == [] and status_of_model(second, hashed=True).state == "ok"
    # A damaged twin is no source.
    (cache / "toy" / "config.json").unlink()
    (cache / "toy" / "config.json").write_bytes(b"damaged")
    (folder / "config.json").unlink()
    fetch_model(second)
    assert (folder / "config.json").read_bytes() == CONFIG and hub.starts() == [0, 0]


def test_the_command_line_fetches_into_a_folder_and_verifies(
    hub, cache, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(store, "OPEN_MODELS", (entry(),))
    monkeypatch.setattr("xdub.perception.registry.OPEN_MODELS", (entry(),))
    assert run_app(app, ["weights", "fetch", "toy", "--to", str(tmp_path)]) == 0
    assert f"toy: {tmp_path / 'toy'}" in capsys.readouterr().out
    assert run_app(app, ["weights", "verify", "toy"]) == 2
    assert "toy is absent; run `xdub weights fetch toy`, or" in capsys.readouterr().err
    assert run_app(app, ["weights", "verify", "face_landmarker", "--in", str(tmp_path)]) == 2
    assert "face_landmarker is one file in the cache" in capsys.readouterr().err
    for verb in ("verify", "list"):
        assert run_app(app, ["weights", verb, "--in", str(tmp_path)]) == 0
        assert f"toy: ok, {tmp_path / 'toy'}" in capsys.readouterr().out
    assert run_app(app, ["weights", "fetch", "face_landmarker", "--to", str(tmp_path)]) == 2
    assert "face_landmarker is one file in the cache" in capsys.readouterr().err
    monkeypatch.setenv("XDUB_WEIGHTS", str(tmp_path))
    assert run_app(app, ["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert f"toy: ok, {tmp_path / 'toy'}" in shown and "sha256 of 2 of 2 files, signature" in shown
    (tmp_path / "toy" / "config.json").write_bytes(CONFIG.replace(b"2", b"3"))
    assert run_app(app, ["weights", "verify", "toy"]) == 2
    error = capsys.readouterr().err
    assert "config.json is damaged" in error and "run `xdub weights fetch toy`" in error
    assert run_app(app, ["weights", "verify", "toy", "--in", str(tmp_path)]) == 2
    assert f"run `xdub weights fetch toy --to {tmp_path}`" in capsys.readouterr().err
    commands = _fetch_command(["face_landmarker", "toy"], tmp_path)
    assert commands == f"`xdub weights fetch face_landmarker` and `xdub weights fetch toy --to {tmp_path}`"
    assert run_app(app, ["weights", "fetch", "tay"]) == 2
    assert "no weights for role 'tay'; valid roles: face_landmarker" in capsys.readouterr().err


def test_a_missing_model_is_named_with_its_command_and_size(cache: Path) -> None:
    with pytest.raises(UserError, match=r"`xdub weights fetch xdub-public` downloads 17\.\d GB"):
        required_folder("xdub-public")
    with pytest.raises(UserError, match="valid names: wan2.1-t2v-1.3b"):
        open_model("wan")
    assert {status.state for status in list_models()} == {"absent"}


def test_a_recipe_whose_folder_lacks_a_network_names_the_command(tmp_path: Path) -> None:
    from xdub.config import load_recipe, network_path
    from xdub.config.network_names import NETWORKS

    roles = {model.role for model in OPEN_MODELS}
    assert {entry.names[0] for entry in NETWORKS if entry.fetched} == {e.names[0] for e in NETWORKS} & roles
    recipe = load_recipe("tiny", ["codec.kind=wan2.2", f"weights={tmp_path}"])
    with pytest.raises(
        UserError, match=f"; `xdub weights fetch wan2.2-vae --to {tmp_path}`, or put a folder"
    ):
        network_path(recipe.codec, "codec")


@pytest.mark.parametrize("model", OPEN_MODELS, ids=lambda model: model.role)
def test_every_entry_has_source_size_licence_and_proof(model: OpenModel) -> None:
    assert model.licence.url.startswith("https://") and model.licence.name and model.purpose
    assert all(file.size > 0 for file in model.files)
    assert all(file.sha256 is None or len(file.sha256) == 64 for file in model.files)
    assert set(model.signed) <= {file.name for file in model.files}
    # A branch may change, so only a commit pins a size that is called exact.
    for file in model.files:
        if isinstance(file.source, HubFile) and file.exact:
            assert len(file.source.revision) == 40
    if model.shapes is not None:
        assert signature(model.shapes()) == model.signature


def test_the_signature_of_a_folder_is_that_of_all_its_shards(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"blocks.0.q.weight": torch.zeros(3, 2)}, tmp_path / "a.safetensors", {"format": "pt"})
    save_file({"blocks.0.q.bias": torch.zeros(3)}, tmp_path / "b.safetensors")
    model = OpenModel(**{**vars(entry()), "signed": ("a.safetensors", "b.safetensors")})
    assert signature_problem(model, tmp_path) is None
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes()[:-1])
    assert "b.safetensors: not a readable safetensors file" in str(signature_problem(model, tmp_path))
