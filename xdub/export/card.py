"""Model card of an export: origin, licence of the base, recipe, data, scores, and how the files are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import xdub
from xdub.config import RANDOM, Recipe, base_path, tunes_open_weights, without_paths
from xdub.errors import UserError
from xdub.export.source import Part
from xdub.model.recognised import recognised_models
from xdub.perception.open_models.entry import OpenModel
from xdub.perception.open_models.table import OPEN_MODELS, open_model

CARD = "README.md"
"""File of the model card, as hubs expect it."""
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""Form of a licence's identifier, such as apache-2.0 or cc-by-nc-4.0."""
PRIVATE = ("upload_to", "init_from")
"""Keys of a recipe, beside the locations of networks, that name files of the author's machines."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of a model card."""

    form: str
    parts: Sequence[Part]
    files: Mapping[str, int]
    """File -> bytes."""
    usage: str
    """Python code that loads the files."""
    bases: tuple[OpenModel, ...]
    """The open model under the weights, or those of which it is one; none for a network that has no base."""
    licence: str | None
    """Identifier of the licence of the exported weights. None: that of the base."""
    scores: Mapping[str, float]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the last phase."""
        return self.parts[-1].recipe

    @property
    def base(self) -> OpenModel | None:
        """The open model whose terms the card states; models with the same tensors have the same terms."""
        return self.bases[0] if self.bases else None


def bases_of(recipe: Recipe, role: str | None = None) -> tuple[OpenModel, ...]:
    """Return the open model that a recipe starts from; () for a network that was trained from the beginning.

    Several are returned where the tensors are those of several models, and no name decides between them.

    Args:
        role: name of the base in the registry. None: it is recognised by the files of ``model.base``.

    Raise UserError if the recipe has a base that is not recognised, or if ``role`` cannot be its base.
    """
    bases = [model for model in OPEN_MODELS if model.shapes is not None]
    names = ", ".join(model.role for model in bases)
    if role == RANDOM:
        return ()
    if role is not None:
        if recipe.model.kind != "wan":
            raise UserError(
                f"--base {role}: the network of model.kind={recipe.model.kind} starts from no open model"
            )
        if (model := open_model(role)) not in bases:
            raise UserError(f"--base {role}: is no network that a model starts from; use one of {names}")
        return (model,)
    location = base_path(recipe)
    if location is None:
        if recipe.weights is not None and _starts_from_weights(recipe):
            raise UserError(
                f"weights={recipe.weights}: has no open weights here, so the licence of the base is unknown; name it "
                f"with --base, one of {names}, or {RANDOM} for a network that started from random weights"
            )
        return ()
    path = Path(location)
    models = recognised_models(path, recipe.name)
    if models:
        return models
    reason = "is no model of the registry" if path.exists() else "is not on this machine"
    raise UserError(
        f"model.base={path}: {reason}, so its licence is unknown; name it with --base, one of {names}"
    )


def _starts_from_weights(recipe: Recipe) -> bool:
    """Return whether a recipe without a path of open weights may have started from some all the same."""
    tuned = any(tunes_open_weights(recipe, name) for name in recipe.phase_names)
    elsewhere = not Path(recipe.weights or "").is_dir()
    return recipe.model.kind == "wan" and recipe.model.base is None and (tuned or elsewhere)


def write_card(card: Card, folder: Path) -> None:
    """Write the model card of a folder."""
    (folder / CARD).write_text(f"---\n{_header(card)}---\n\n{_body(card)}", "utf-8")


def card_header(text: str) -> dict[str, Any]:
    """Return the values at the beginning of a model card; {} if it has none."""
    match = re.match(r"---\n(.*?\n)---\n", text, re.S)
    try:
        values = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _header(card: Card) -> str:
    values: dict[str, Any] = {
        "tags": ["visual-dubbing", "lip-sync", "xdub"],
        "pipeline_tag": "video-to-video",
    }
    if card.base is not None and card.base.repo is not None:
        relation = "adapter" if _is_adapter(card) else "finetune"
        values |= {"base_model": card.base.repo, "base_model_relation": relation}
    if _is_adapter(card):
        values["tags"].append("lora")
    values |= {"library_name": {"peft": "peft", "comfy-lora": "diffusers"}.get(card.form, "xdub")}
    if card.form in ("diffusers-lora", "diffusers"):
        values["library_name"] = "diffusers"
    terms = card.base.licence if card.base is not None else None
    identifier = card.licence or (terms.identifier if terms is not None else None)
    if identifier is not None:
        values["license"] = identifier
    if identifier == "other" and terms is not None:
        values |= {"license_name": "terms-of-the-base", "license_link": terms.url}
    return yaml.safe_dump(values, sort_keys=True, allow_unicode=True)


def _body(card: Card) -> str:
    phases = ", ".join(part.phase for part in card.parts)
    sections = [
        f"# {card.recipe.name}: {phases}",
        f"Weights of a visual dubbing model, exported by xdub {xdub.__version__} in the form `{card.form}`.",
        "## Files\n\n"
        + _table(("file", "bytes"), [(f"`{name}`", f"{size:,}") for name, size in card.files.items()]),
        f"## Loading\n\n```python\n{card.usage.strip()}\n```",
        f"## Licence\n\n{_licence(card)}",
        f"## Training\n\n{_training(card)}",
    ]
    if card.scores:
        rows = [(name, f"{value:g}") for name, value in card.scores.items()]
        sections.append("## Scores\n\n" + _table(("metric", "value"), rows))
    recipe = yaml.safe_dump(public_recipe(card.recipe), sort_keys=False)
    sections.append(f"## Recipe\n\n```yaml\n{recipe}```")
    sections.append(
        "## Responsible use\n\nDubbing changes what a person appears to say. Use the model with the consent of the "
        "people shown, and label its output as generated."
    )
    return "\n\n".join(sections) + "\n"


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the plain values of a recipe without locations of files on the author's machines."""
    return _blanked(without_paths(recipe.to_dict()))


def _blanked(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if key in PRIVATE else _blanked(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def _licence(card: Card) -> str:
    if card.base is None:
        own = card.licence or "not stated"
        return f"Licence of these weights: {own}. Their recipe names no open weights that they started from."
    terms, lines = card.base.licence, []
    if card.licence is not None:
        lines.append(f"Licence of these weights: {card.licence}.")
    repo = f" (https://huggingface.co/{card.base.repo})" if card.base.repo else ""
    names = " or ".join(model.role for model in card.bases)
    same = ", which have the same names and shapes of tensors" if len(card.bases) > 1 else ""
    lines.append(f"The base is {names}{repo}{same}. Its licence is {terms.name}: {terms.url}.")
    if terms.notice:
        lines.append(f"Note: {terms.notice}.")
    return " ".join(lines)


def _training(card: Card) -> str:
    rows = []
    for part in card.parts:
        for data in part.data or [{}]:
            rows.append(
                (
                    part.phase,
                    str(part.facts.get("step", "")),
                    str(data.get("kind", "")),
                    str(data.get("rows", "")),
                    f"`{str(data['digest'])[:16]}`" if "digest" in data else "not recorded",
                )
            )
    return _table(("phase", "steps", "data", "clips", "digest of the data"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _is_adapter(card: Card) -> bool:
    return card.form in ("peft", "diffusers-lora", "comfy-lora")
