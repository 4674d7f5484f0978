"""Licences of published models: shown once, recorded, and never asked for without a terminal."""

from __future__ import annotations

import json
import sys

import pytest
import typer

from xdub.cli.licences import agree
from xdub.errors import UserError
from xdub.model.licences import accept, is_accepted, licence_of, require_licence


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


def test_consent_to_other_terms_does_not_count(settings_folder):
    accept("xdub-public")
    path = settings_folder / "licences.json"
    path.write_text(json.dumps({"xdub-public": {"licence": "another"}}))
    assert not is_accepted("xdub-public")
    path.write_text("damaged")
    assert not is_accepted("xdub-public")
    accept("xdub-public")
    assert is_accepted("xdub-public")
