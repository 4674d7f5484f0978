"""Recipes that start from a published editor NAME:DIR, which is given in place of the path of weights.

Every verb and function that accepts such a text resolves it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdub.config import Recipe, load_recipe, parse_override, recipe_from_dict
from xdub.errors import UserError
from xdub.model.editor_sampling import is_related
from xdub.model.published import (
    PublishedFolder,
    check_settings,
    moved_files,
    published_folder,
    with_files,
)


def load_recipe_from_editor(
    recipe: str | Path, models: Sequence[str | Path | None], settings: Sequence[str] = ()
) -> Recipe:
    """Load a recipe with ``settings``, and let it start from the published editor among ``models``, if any.

    Raise UserError for whatever `start_from_editor` refuses, and for a setting of a size that the files decide.
    """
    loaded = load_recipe(recipe, settings)
    for published in _editors(models):
        check_settings(published, settings)
    return start_from_editor(loaded, *models)


def start_from_editor(recipe: Recipe, *models: str | Path | None) -> Recipe:
    """Return the recipe with the files and sizes of the published editor among ``models``; the recipe if there is none.

    Prompt, codec and speech encoder that the recipe names itself stay. Raise UserError for a missing file, for a recipe
    with another network, and for open weights of the recipe that are not those of the editor.
    """
    for published in _editors(models):
        _check_kind(recipe, published)
        base = recipe.model.base
        if base is not None and Path(base).resolve() != published.weights.resolve():
            raise UserError(
                f"{published} starts from its own weights, but the recipe has model.base={base}; omit one"
            )
        raw = recipe.to_dict()
        for text in with_files(published, moved_files(recipe)):
            (section, key), value = parse_override(text)
            raw[section][key] = value
        recipe = recipe_from_dict(raw)
    return recipe


def _editors(models: Sequence[str | Path | None]) -> list[PublishedFolder]:
    """Return the published editors among ``models``."""
    return [editor for model in models if model is not None and (editor := published_folder(model))]


def _check_kind(recipe: Recipe, published: PublishedFolder) -> None:
    """Raise UserError for a recipe whose network is of another kind, or reads other speech features."""
    own = load_recipe(published.editor.name)
    if not is_related(recipe, own):
        raise UserError(
            f"{published}: recipe {recipe.name} has another network (model.speech={recipe.model.speech}, "
            f"audio.kind={recipe.audio.kind}, the editor's are {own.model.speech} and {own.audio.kind}); use a recipe "
            f"that is based on {own.name}"
        )
