"""Locations of third-party networks: under fixed names in the recipe's folder `weights`, or at a path of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.config.loader import recipe_from_dict
from xdub.config.mask_section import MASK_NETWORKS, MasksConfig
from xdub.config.network_names import NETWORKS, Role
from xdub.config.network_sections import AudioConfig, CodecConfig, PerceptionConfig
from xdub.config.phases import in_model, phase_facts
from xdub.config.recipe import Recipe
from xdub.config.speech_parts import JOINED, speech_digest
from xdub.errors import UserError
from xdub.files.content import content_digest

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""Form of a path that may also be the name of a model on the hub, which only loading can check."""
Section = CodecConfig | AudioConfig | PerceptionConfig | MasksConfig
"""Section of a recipe that names networks."""


RANDOM = "random"
"""Value of ``model.base`` for random weights."""
MODEL_PATHS = ("prompt", "base")
"""Keys of section `model` that are locations of files."""
PREPARE, SPEAKERS, IMPORT, PAIRS, DUB = "prepare", "speakers", "import-pairs", "pairs", "dub"
"""Names of the stages that are no phases."""
STAGES = (PREPARE, SPEAKERS, IMPORT, PAIRS, DUB)
"""All stages that are no phases."""
PACKAGED: dict[Role, tuple[str, ...]] = {"audio": ("tiny.en",)}
"""Names in place of a path that stand for a network of the registry, `xdub weights list`."""


@dataclass(frozen=True)
class NetworkUse:
    """A network, and the first stage that loads it."""

    role: Role
    section: Section
    """Section of the recipe that names the network."""
    stage: str
    """"" for codec and audio encoder, which nearly all stages load, and for a network that none loads."""


def network_kind(section: Section, role: Role) -> str:
    """Return the kind of network that a section selects for a role."""
    if isinstance(section, MasksConfig):
        return section.networks[role]
    return getattr(section, role) if isinstance(section, PerceptionConfig) else section.kind


def network_path(section: Section, role: Role) -> str | None:
    """Return the path from which a network is loaded; None means that the network has a default in the package.

    The section's own path wins over the folder `Recipe.weights`. Raise UserError if a network without a default has
    neither.
    """
    kind, own_path = network_kind(section, role), _own_path(section, role)
    entry = next((entry for entry in NETWORKS if (entry.role, entry.kind) == (role, kind)), None)
    if own_path is not None or entry is None:
        return own_path
    named = kind if not isinstance(section, MasksConfig) else getattr(section, _kind_key(section, role)[6:])
    setting, key = f"{_kind_key(section, role)}={named}", _path_key(section, role)
    if section.weights is None:
        raise UserError(
            f"{setting} needs its weights: --set weights=DIR for a folder that holds {' or '.join(entry.names)}, or "
            f"--set {key}=PATH for {entry.description}"
        )
    folder = Path(section.weights)
    if not folder.is_dir():
        raise UserError(
            f"weights={folder}: there is no such folder; `xdub weights mini --out DIR` writes a small one"
        )
    for name in entry.names:
        if (folder / name).exists():
            return str(folder / name)
    command = f"`xdub weights fetch {entry.names[0]} --to {folder}`, or " if entry.fetched else ""
    raise UserError(
        f"{setting} needs its weights, and weights={folder} has no {' or '.join(entry.names)}; {command}put "
        f"{entry.description} there, or --set {key}=PATH"
    )


def prompt_path(recipe: Recipe) -> str:
    """Return the file of the embedded prompt of a recipe whose ``model.kind`` is ``wan``.

    ``model.prompt`` wins over the file in the folder `Recipe.weights`. Raise UserError if there is neither.
    """
    if recipe.model.prompt is not None:
        return recipe.model.prompt
    entry = next(entry for entry in NETWORKS if entry.role == "prompt")
    folder = Path(recipe.weights or "DIR")
    path = folder / entry.names[0]
    if recipe.weights is not None:
        for name in entry.names:
            if (folder / name).is_file():
                return str(folder / name)
    location = "" if recipe.weights is None else f", and weights={recipe.weights} has no {path.name}"
    raise UserError(
        f"model.kind=wan needs an embedded prompt{location}; write it with `xdub weights prompt --umt5 DIR --out "
        f"{path}`, or --set model.prompt=PATH for {entry.description}"
    )


def base_path(recipe: Recipe) -> str | None:
    """Return the open weights that a recipe starts from: ``model.base``, or the ones in the folder `Recipe.weights`.

    None: the network starts from random weights.
    """
    if recipe.model.base == RANDOM:
        return None
    if recipe.model.kind != "wan" or recipe.model.base is not None:
        return recipe.model.base
    names = next(entry.names for entry in NETWORKS if entry.role == "base")
    paths = [Path(recipe.weights) / name for name in names] if recipe.weights is not None else []
    return next((str(path) for path in paths if path.exists()), None)


def required_path(section: Section, role: Role) -> str:
    """Return the path of a network that has no default in the package, see `network_path`."""
    path = network_path(section, role)
    assert path is not None, f"{role}: the network is in the package"
    return path


def network_paths(
    recipe: Recipe, stages: Sequence[str], roles: Sequence[str] | None = None
) -> dict[Role, str]:
    """Return role -> path of the networks (by default all) that the stages load from a path."""
    uses = [use for use in used_networks(recipe, stages) if roles is None or use.role in roles]
    paths = {use.role: network_path(use.section, use.role) for use in uses}
    if recipe.model.kind == "wan" and (roles is None or "prompt" in roles) and any(map(denoises, stages)):
        paths["prompt"] = prompt_path(recipe)
    if (roles is None or "base" in roles) and any(map(denoises, stages)):
        paths["base"] = base_path(recipe)
    return {role: path for role, path in paths.items() if path is not None}


def network_settings(recipe: Recipe) -> dict[str, str]:
    """Return key -> value of every location of networks that the recipe sets, such as ``codec.path``."""
    paths = {_path_key(section, role): _own_path(section, role) for role, section in _sections(recipe)}
    paths |= {"weights": recipe.weights, "model.prompt": recipe.model.prompt, "model.base": recipe.model.base}
    return {key: path for key, path in paths.items() if path is not None}


def located(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths of all networks on this disk, for workers with another working folder."""
    raw = recipe.to_dict()
    for section, key in _path_keys(raw):
        path = section[key]
        if path is not None and not is_packaged(path) and Path(path).exists():
            section[key] = str(Path(path).absolute())
    return recipe_from_dict(raw)


def without_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a recipe without the locations of its networks."""
    copy = deepcopy(dict(raw))
    for section, key in _path_keys(copy):
        section[key] = None
    return copy


def identity_without_paths(recipe: Recipe) -> dict[str, Any]:
    """Return `Recipe.identity` without the locations of networks.

    A prompt or base that the recipe names, and one that its folder `weights` holds, lead to the same values.
    """
    raw = without_paths(recipe.identity())
    for key in MODEL_PATHS:
        raw["model"].pop(key, None)
    return raw


def network_digests(
    recipe: Recipe, stages: Sequence[str], *, roles: Sequence[str] | None = None
) -> dict[str, str]:
    """Return role -> sha256 of the networks that the stages load from a path.

    A model of the registry or the hub has its name instead.

    Args:
        roles: the networks to digest; default: all of the stages.
    """
    digests = {}
    for role, path in network_paths(recipe, stages, roles).items():
        if is_packaged(path) or not Path(path).exists():
            digests[str(role)] = path
            continue
        folder = Path(path)
        # A pipeline keeps its autoencoder and its transformer in folders of their own.
        part = {"codec": "vae", "base": "transformer"}.get(role)
        if part is not None and (folder / part).is_dir() and not (folder / "config.json").is_file():
            folder = folder / part
        joined = role == "audio" and recipe.audio.kind == JOINED
        digests[str(role)] = speech_digest(folder) if joined else content_digest(folder)
    return digests


def _path_keys(raw: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return (section, key) of every location of networks in a recipe's plain values."""
    perception = raw["perception"]
    paths = [key for key in perception if key.endswith("_path")]
    return [
        (raw, "weights"),
        (raw["codec"], "path"),
        (raw["audio"], "path"),
        *((perception, k) for k in paths),
        *((raw["masks"], key) for key in raw.get("masks", ()) if key.endswith("_path")),
        # `Recipe.identity` omits these keys where they have their defaults.
        *((raw["model"], key) for key in MODEL_PATHS if key in raw["model"]),
    ]


def is_packaged(path: str) -> bool:
    """Return whether a path is the name of a network of the registry."""
    return any(path in names for names in PACKAGED.values())


def used_networks(recipe: Recipe, stages: Sequence[str]) -> list[NetworkUse]:
    """Return the networks that the stages (phases and `STAGES`) load."""
    uses = []
    for role, section in _sections(recipe):
        stage = next((stage for stage in stages if role in _networks(stage)), None)
        if stage is not None:
            shared = section is recipe.codec or section is recipe.audio
            uses.append(NetworkUse(role, section, "" if shared else stage))
    return uses


def idle_networks(recipe: Recipe, stages: Sequence[str]) -> list[NetworkUse]:
    """Return the networks whose path the recipe sets although none of the stages loads them."""
    used = {use.role for use in used_networks(recipe, stages)}
    return [
        NetworkUse(role, section, "")
        for role, section in _sections(recipe)
        if role not in used and _own_path(section, role) is not None
    ]


def _sections(recipe: Recipe) -> list[tuple[Role, Section]]:
    """Return each role with the section that selects its network."""
    return [
        ("codec", recipe.codec),
        ("audio", recipe.audio),
        ("identity", recipe.perception),
        ("sync", recipe.perception),
        ("features", recipe.perception),
        *((entry.role, recipe.masks) for entry in NETWORKS if entry.role in recipe.masks.networks),
    ]


def _networks(stage: str) -> tuple[str, ...]:
    """Return the roles of the networks that a stage loads."""
    if stage in (PREPARE, IMPORT):
        masks = tuple(role for networks in MASK_NETWORKS.values() for role in networks)
        return masks if stage == PREPARE else (*masks, "identity")
    if stage == SPEAKERS:
        return ("identity",)
    if stage in (PAIRS, DUB):
        return ("codec", "audio", "identity") if stage == PAIRS else ("codec", "audio")
    # A SyncNet computes its own features of the sound.
    return ("codec", *(("audio",) if in_model(stage) else ()), *phase_facts(stage).networks)


def denoises(stage: str) -> bool:
    """Return whether a stage runs the backbone, which reads the prompt."""
    return stage in (PAIRS, DUB) or (stage not in STAGES and in_model(stage))


def _own_path(section: Section, role: Role) -> str | None:
    named = isinstance(section, (PerceptionConfig, MasksConfig))
    return getattr(section, f"{role}_path") if named else section.path


def _kind_key(section: Section, role: Role) -> str:
    if isinstance(section, MasksConfig):
        return "masks.face" if role in MASK_NETWORKS["flame"] else "masks.occluders"
    return f"perception.{role}" if isinstance(section, PerceptionConfig) else f"{role}.kind"


def _path_key(section: Section, role: Role) -> str:
    if isinstance(section, MasksConfig):
        return f"masks.{role}_path"
    return f"perception.{role}_path" if isinstance(section, PerceptionConfig) else f"{role}.path"
