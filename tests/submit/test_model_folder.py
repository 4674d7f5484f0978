"""`xdub submit` checks options whose value is `tiny` or a model folder."""

from __future__ import annotations

import pytest
from typer.main import get_command

from xdub.cli import app
from xdub.cli.submitting import option_kinds
from xdub.errors import UserError
from xdub.submit.command import Command, check_command

BOOTSTRAP = ("bootstrap", "--recipe", "tiny", "--data", "/ds", "--out", "/run", "--init")
PAIRS = ("pairs", "--recipe", "tiny", "--data", "/ds", "--out", "/pairs", "--generator")


def check(*words: str) -> Command:
    """Check the command line ``words`` as `xdub submit` does."""
    return check_command(words[:1], option_kinds(get_command(app), words[:1]), words[1:])


@pytest.mark.parametrize("verb", [BOOTSTRAP, PAIRS])
@pytest.mark.parametrize("model", ["tiny", "/shared/run/bundle"])
def test_the_shipped_model_and_an_absolute_folder_are_sent_unchanged(verb, model) -> None:
    assert check(*verb, model).arguments[-1] == model


@pytest.mark.parametrize("verb", [BOOTSTRAP, PAIRS])
@pytest.mark.parametrize("model", ["run/bundle", "./tiny", "tinny"])
def test_a_relative_model_folder_is_refused_in_one_line(verb, model) -> None:
    with pytest.raises(UserError) as error:
        check(*verb, model)
    message = str(error.value)
    assert message.startswith(f"{verb[-1]} {model}: a relative path means nothing on the cluster")
    assert "\n" not in message
    assert "or tiny, the shipped model" in message
