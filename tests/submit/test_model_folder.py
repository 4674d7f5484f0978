"""Options that take `tiny` or a folder, as `xdub submit` sees them."""

from __future__ import annotations

import pytest

from xdub.cli.submitting import VERBS
from xdub.errors import UserError
from xdub.submit.command import check_command

BOOTSTRAP = ("bootstrap", "--recipe", "tiny", "--data", "/ds", "--out", "/run", "--init")
PAIRS = ("pairs", "--recipe", "tiny", "--data", "/ds", "--out", "/pairs", "--generator")


def check(*words: str):
    return check_command(words[:1], VERBS[words[:1]], words[1:])


@pytest.mark.parametrize("verb", [BOOTSTRAP, PAIRS])
@pytest.mark.parametrize("model", ["tiny", "/shared/run/bundle"])
def test_the_shipped_model_and_a_folder_of_the_cluster_travel_as_they_are(verb, model) -> None:
    assert check(*verb, model).arguments[-1] == model


@pytest.mark.parametrize("verb", [BOOTSTRAP, PAIRS])
@pytest.mark.parametrize("model", ["run/bundle", "./tiny", "tinny"])
def test_a_relative_model_folder_is_refused_in_one_line(verb, model) -> None:
    with pytest.raises(UserError) as error:
        check(*verb, model)
    told = str(error.value)
    assert told.startswith(f"{verb[-1]} {model}: a relative path means nothing on the cluster")
    assert "\n" not in told
    assert "or tiny, the shipped model" in told
