"""Thresholds of identity: every embedder has its own, and a recipe cannot ask for another one's."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from xdub.config import EMBEDDERS, PerceptionConfig, load_recipe, recipe_from_dict
from xdub.config.shipped import shipped_weights
from xdub.errors import UserError


def test_every_embedder_has_a_scale_that_holds_its_threshold():
    assert set(EMBEDDERS) == set(get_args(get_type_hints(PerceptionConfig)["identity"]))
    assert len({scale.threshold for scale in EMBEDDERS.values()}) == len(EMBEDDERS)
    for scale in EMBEDDERS.values():
        low, high = scale.plausible
        assert low < scale.threshold < high and scale.origin


@pytest.mark.parametrize(
    ("recipe", "embedder"), [("tiny", "mobilefacenet"), ("small", "mobilefacenet"), ("xdub-1b", "arcface")]
)
def test_a_recipe_without_a_threshold_has_its_embedders(recipe, embedder):
    assert load_recipe(recipe).perception.identity == embedder
    assert load_recipe(recipe).identity_threshold == EMBEDDERS[embedder].threshold
    for other, scale in EMBEDDERS.items():
        assert load_recipe(recipe, [f"perception.identity={other}"]).identity_threshold == scale.threshold


@pytest.mark.parametrize("embedder", ["mobilefacenet", "dlib"])
def test_the_threshold_of_arcface_is_refused_with_another_embedder(embedder):
    own = EMBEDDERS[embedder]
    with pytest.raises(UserError) as caught:
        load_recipe("xdub-1b", [f"perception.identity={embedder}", "pairs.identity_threshold=0.85"])
    message = str(caught.value)
    assert message.startswith("pairs.identity_threshold=0.85 is the threshold of arcface")
    assert f"perception.identity={embedder}" in message and "\n" not in message
    assert f"own {own.threshold:g}" in message and "set {:g} to {:g}".format(*own.plausible) in message


def test_a_threshold_on_the_embedders_scale_is_accepted_and_any_other_refused():
    assert load_recipe("xdub-1b", ["pairs.identity_threshold=0.85"]).identity_threshold == 0.85
    for embedder, value in (("mobilefacenet", 0.86), ("mobilefacenet", 0.55), ("dlib", 0.9), ("dlib", -1)):
        settings = [f"perception.identity={embedder}", f"pairs.identity_threshold={value}"]
        assert load_recipe("tiny", settings).identity_threshold == value
    for embedder, value in (("dlib", 0.6), ("dlib", 0.995), ("mobilefacenet", 0.4), ("arcface", 1.2)):
        with pytest.raises(
            UserError, match=f"={value} is outside the scale of perception.identity={embedder}"
        ):
            load_recipe("tiny", [f"perception.identity={embedder}", f"pairs.identity_threshold={value}"])
    with pytest.raises(UserError, match="0.8 is the threshold of mobilefacenet"):
        load_recipe("tiny", ["perception.identity=dlib", "pairs.identity_threshold=0.8"])


def test_the_number_is_recorded_and_read_back_equal():
    recipe = load_recipe("tiny")
    raw = recipe.to_dict()
    assert raw["pairs"]["identity_threshold"] == EMBEDDERS["mobilefacenet"].threshold
    assert recipe_from_dict(raw) == recipe
    raw["pairs"]["identity_threshold"] = None
    assert recipe_from_dict(raw) == recipe


def test_recipes_of_earlier_runs_open_as_before(tmp_path: Path):
    old = load_recipe(shipped_weights() / "recipe.yaml")
    assert (old.perception.identity, old.identity_threshold) == ("dlib", 0.9)
    raw = old.to_dict()
    raw["pairs"]["identity_threshold"] = 0.85
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    # A new run with this recipe is refused; the weights of the old one can still dub.
    with pytest.raises(UserError, match="0.85 is the threshold of arcface"):
        load_recipe(path)
    assert load_recipe(path, recorded=True).identity_threshold == 0.85
