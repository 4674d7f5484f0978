"""Recipes that start from a published editor NAME:DIR, which is given in place of the path of weights.

Every verb and function that accepts such a text resolves it here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from xdub.config import Recipe, load_recipe, network_settings, parse_override, recipe_from_dict
from xdub.errors import UserError
from xdub.model.published import MOVABLE, PublishedFolder, published_folder, with_files


def load_for(recipe: str | Path, models: Sequence[str | Path | None], settings: Sequence[str] = ()) -> Recipe:
    """Load a recipe with ``settings``, and with the files and sizes of the published editor among ``models``, if any.

    Raise UserError for a missing file, and for a setting that the files decide.
    """
    for model in models:
        published = None if model is None else published_folder(model)
        if published is not None:
            _check_kind(load_recipe(recipe, settings), published)
            return with_editor(load_recipe(recipe, with_files(published, settings)), *models)
    return load_recipe(recipe, settings)


def with_editor(recipe: Recipe, *models: str | Path | None) -> Recipe:
    """Return the recipe with the files and sizes of the published editor among ``models``; the recipe if there is none.

    Files that the recipe names itself stay. Raise UserError for a missing file, and for open weights of the recipe that
    are not those of the editor.
    """
    for model in models:
        published = None if model is None else published_folder(model)
        if published is None:
            continue
        _check_kind(recipe, published)
        base = recipe.model.base
        if base is not None and Path(base).resolve() != published.weights.resolve():
            raise UserError(
                f"{published} starts from its own weights, but the recipe has model.base={base}; omit one"
            )
        own = network_settings(recipe)
        settings = with_files(published, [f"{key}={json.dumps(own[key])}" for key in MOVABLE if key in own])
        raw = recipe.to_dict()
        for text in settings:
            (section, key), value = parse_override(text)
            raw[section][key] = value
        recipe = recipe_from_dict(raw)
    return recipe


def _check_kind(recipe: Recipe, published: PublishedFolder) -> None:
    """Raise UserError for a recipe whose network is of another kind, or reads other speech features."""
    own = load_recipe(published.editor.name)
    if (recipe.model.speech, recipe.audio.kind) != (own.model.speech, own.audio.kind):
        raise UserError(
            f"{published}: recipe {recipe.name} has another network (model.speech={recipe.model.speech}, "
            f"audio.kind={recipe.audio.kind}, the editor's are {own.model.speech} and {own.audio.kind}); use a recipe "
            f"that is based on {own.name}"
        )
