"""Licences of published models: shown once, recorded, and never asked for without a terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import typer

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.cli.licences import agree
from xdub.config import load_recipe
from xdub.errors import UserError
from xdub.files.tensor_headers import read_shapes
from xdub.files.tensors import signature
from xdub.model import load_backbone
from xdub.model.bundle import load_bundle
from xdub.model.licences import (
    accept,
    is_accepted,
    licence_of,
    require_base_licence,
    require_licence,
    required_licences,
    weights_licences,
)
from xdub.model.published import published_folder, with_files
from xdub.pairs.factory import build_pairs
from xdub.perception.open_models.table import OPEN_MODELS
from xdub.train.run import _weights, train_phase


def test_without_consent_there_is_one_error_that_says_how_to_give_it(settings_folder):
    with pytest.raises(
        UserError, match="--accept-licence xdub-public, or set XDUB_ACCEPT_LICENCE=xdub-public"
    ) as error:
        agree("xdub-public:somewhere", None)
    assert "academic research" in str(error.value) and "https://" in str(error.value)
    assert not settings_folder.exists()
    agree("tiny", None)
    agree(None, [])


def test_consent_on_the_command_line_is_recorded_for_that_model(settings_folder, capsys):
    agree("tbdub-student:DIR", ["tbdub-student"])
    assert "Apache-2.0" in capsys.readouterr().err
    record = json.loads((settings_folder / "licences.json").read_text())
    assert list(record) == ["tbdub-student"] and record["tbdub-student"]["url"].startswith("https://")
    agree("tbdub-student:DIR", None)
    assert capsys.readouterr().err == ""
    require_licence("tbdub-student")
    assert not is_accepted("xdub-public")
    with pytest.raises(UserError, match="--accept-licence gpl: choose one of xdub-public, tbdub-teacher"):
        agree(None, ["gpl"])


def test_the_environment_accepts_for_batch_jobs_and_records_nothing(settings_folder, monkeypatch):
    monkeypatch.setenv("XDUB_ACCEPT_LICENCE", "xdub-public,tbdub-teacher")
    require_licence("xdub-public")
    require_licence("tbdub-teacher")
    with pytest.raises(UserError, match="tbdub-student has the licence"):
        require_licence("tbdub-student")
    assert not settings_folder.exists()


@pytest.mark.parametrize("answer", [True, False])
def test_at_a_terminal_the_user_is_asked_once(settings_folder, monkeypatch, answer):
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    questions = []
    monkeypatch.setattr(typer, "confirm", lambda text, err: questions.append(text) or answer)
    if answer:
        agree("tbdub-teacher:DIR", None)
        agree("tbdub-teacher:DIR", None)
    else:
        with pytest.raises(UserError, match="accept it once"):
            agree("tbdub-teacher:DIR", None)
    assert questions == ["Accept this licence?"] and is_accepted("tbdub-teacher") is answer


def test_a_folder_of_two_encoders_names_the_licences_of_both():
    licence = licence_of("xdub-speech")
    assert "MIT" in licence.name and "Apache-2.0" in licence.name and licence.identifier == "other"


def test_open_weights_of_a_published_editor_have_its_licence_under_any_name(
    releases, settings_folder, monkeypatch, tmp_path, capsys
):
    source = published_folder(releases["tbdub-student"])
    value = signature(read_shapes(source.weights))
    roles = ("tbdub-teacher", "tbdub-student")
    models = [replace(model, signature=value) if model.role in roles else model for model in OPEN_MODELS]
    monkeypatch.setattr("xdub.model.recognised.OPEN_MODELS", models)
    (tmp_path / "mine.safetensors").symlink_to(source.weights)
    setting = f"model.base={tmp_path / 'mine.safetensors'}"
    settings = [text for text in with_files(source) if not text.startswith("model.base=")] + [setting]
    recipe = load_recipe("tbdub-teacher", settings)
    assert required_licences(replace(recipe, name="tiny")) == roles
    assert required_licences(recipe) == ("tbdub-teacher",)
    for use in (
        lambda: train_phase("editor", recipe, tmp_path, tmp_path / "run"),
        lambda: _weights(tmp_path / "mine.safetensors"),
        lambda: build_pairs(recipe, "tiny", tmp_path, tmp_path / "pairs"),
        lambda: load_bundle(write_folder(tmp_path / "model", recipe)),
        lambda: load_backbone(tmp_path / "mine.safetensors"),
    ):
        with pytest.raises(UserError, match="--accept-licence tbdub-teacher"):
            use()
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "run"), *(f"--set={text}" for text in settings)]
    assert run_app(app, ["train", "editor", "--recipe", "tbdub-teacher", *words]) == 2
    assert "--accept-licence tbdub-teacher" in capsys.readouterr().err
    # Consent was given where a phase was trained, so its export needs none.
    (tmp_path / "config.json").write_text('{"recipe": {}}')
    assert weights_licences(tmp_path / "mine.safetensors") == ()
    (tmp_path / "config.json").unlink()
    accept("tbdub-student")
    # Weights that may be those of both editors need consent to the terms of one, because the terms are the same.
    require_base_licence(replace(recipe, name="tiny"))
    with pytest.raises(UserError, match="--accept-licence tbdub-teacher"):
        require_base_licence(recipe)


def write_folder(folder, recipe):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "editor.safetensors").write_bytes(b"")
    return folder


def test_consent_to_other_terms_does_not_count(settings_folder):
    accept("xdub-public")
    path = settings_folder / "licences.json"
    path.write_text(json.dumps({"xdub-public": {"licence": "another"}}))
    assert not is_accepted("xdub-public")
    path.write_text("damaged")
    assert not is_accepted("xdub-public")
    accept("xdub-public")
    assert is_accepted("xdub-public")
