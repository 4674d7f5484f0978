"""Recipes that sample a published editor: its network, and the settings that suit the editor."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, fields, replace

from xdub.config import GuidanceConfig, Recipe
from xdub.errors import UserError

MACHINE = ("compile", "offload")
"""Keys of section `dub` that follow the machine instead of the editor."""


def with_network_of(recipe: Recipe, editor: Recipe) -> Recipe:
    """Return a recipe with the network, the codec and the audio encoder of an editor's recipe.

    The section `dub` is that of a recipe of this kind of editor, and the editor's own for every other recipe;
    `dub.compile` is always the recipe's. Raise UserError for a recipe that `check_sampling` refuses.
    """
    check_sampling(recipe, editor)
    dub = recipe.dub if is_related(recipe, editor) else replace(editor.dub, compile=recipe.dub.compile)
    # The targets of adapters name layers of the network.
    changed = dict(model=editor.model, lora=editor.lora, codec=editor.codec, audio=editor.audio, dub=dub)
    return replace(recipe, **changed)


def is_related(recipe: Recipe, editor: Recipe) -> bool:
    """Return whether a recipe's network reads the speech features of an editor in the same windows."""
    return (recipe.model.speech, recipe.audio.kind) == (editor.model.speech, editor.audio.kind)


def check_sampling(recipe: Recipe, editor: Recipe) -> None:
    """Raise UserError for a recipe of this kind of editor whose section `dub` samples another kind.

    Editors differ in guidance, without which a teacher's pictures are wrong, and in the form of motion.
    """

    def form(each: Recipe) -> tuple[bool, str]:
        return each.dub.guidance is None, each.dub.motion

    if not is_related(recipe, editor) or form(recipe) == form(editor):
        return
    raise UserError(
        f"recipe {recipe.name} samples its editor with {_sampling(recipe)}, and {editor.name} is sampled with "
        f"{_sampling(editor)}; use {' '.join(_sampling_options(recipe, editor))}"
    )


def _sampling_options(recipe: Recipe, editor: Recipe) -> list[str]:
    """Return options --set of a shell, which give a recipe the section `dub` of an editor's recipe."""
    options = []
    for key in (field.name for field in fields(editor.dub) if field.name not in MACHINE):
        value = getattr(editor.dub, key)
        if value == getattr(recipe.dub, key):
            continue
        if isinstance(value, GuidanceConfig):
            defaults = asdict(GuidanceConfig())
            value = {name: weight for name, weight in asdict(value).items() if weight != defaults[name]}
        text = value if isinstance(value, str) else json.dumps(value)
        options.append(f"--set {shlex.quote(f'dub.{key}={text}')}")
    return options


def _sampling(recipe: Recipe) -> str:
    guidance = "no guidance" if recipe.dub.guidance is None else "guidance"
    return f"{guidance} and motion={recipe.dub.motion}"
