"""Published dubbing editors by name: ``xdub-public:DIR``, ``tbdub-teacher:DIR`` and ``tbdub-student:DIR``.

DIR holds the files as they were released, e.g. by `xdub weights fetch NAME`. The recipe of the same name has the facts
of the model (`xdub/recipes/published`); the sizes of the network come from its file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.config import Recipe, load_recipe, network_settings, parse_override
from xdub.errors import UserError
from xdub.files.weight_folder import WeightFolder
from xdub.model.wan.config import WanConfig
from xdub.model.wan.config_files import read_wan_config
from xdub.perception.open_models.dubbing import VAE_FILE
from xdub.perception.open_models.table import open_model
from xdub.perception.open_models.wan_names import original_name

CODEC = VAE_FILE[0].name
"""File of the autoencoder, which all published editors share."""
PROMPTS = ("prompt.safetensors", "null_prompt_emb.pt")
"""Names of the embedded prompt; the first that exists is read."""
MOVABLE = ("model.prompt", "codec.path", "audio.path")
"""Keys of the files that a setting may move out of an editor's folder."""
SIZES = ("hidden_size", "num_heads", "num_layers", "ffn_dim", "text_dim", "speech_width")
"""Keys of section `model` that the network's file decides."""
DECIDED = (*(f"model.{key}" for key in SIZES), "audio.dim")
"""Keys that the network's file decides, so that no setting may change them."""


@dataclass(frozen=True, kw_only=True)
class PublishedEditor:
    """A published editor; its name is also that of its recipe and of its entry in the registry."""

    name: str
    audio: str
    """Folder of the speech encoders below that of the model; "." is the model's own."""

    @property
    def weights(self) -> str:
        """File of the network."""
        return open_model(self.name).signed[0]


EDITORS = (
    PublishedEditor(name="xdub-public", audio="."),
    PublishedEditor(name="tbdub-teacher", audio="hubert-large-ll60k"),
    PublishedEditor(name="tbdub-student", audio="hubert-large-ll60k"),
)
"""All published editors."""


@dataclass(frozen=True, kw_only=True)
class PublishedFolder:
    """A published editor and the folder of its files."""

    editor: PublishedEditor
    path: Path

    @property
    def weights(self) -> Path:
        """File of the network."""
        return self.path / self.editor.weights

    def __str__(self) -> str:
        return f"{self.editor.name}:{self.path}"


def published_folder(model: str | Path) -> PublishedFolder | None:
    """Return the editor and folder of a text NAME:DIR; None if the text does not begin with the name of an editor."""
    name, colon, folder = str(model).partition(":")
    editor = next((editor for editor in EDITORS if editor.name == name), None)
    if editor is None:
        return None
    if not colon or not folder:
        raise UserError(
            f"{model}: name the folder of its files, {name}:DIR; `xdub weights fetch {name}` fetches them"
        )
    return PublishedFolder(editor=editor, path=Path(folder).expanduser())


def editor_name(model: str) -> str:
    """Return the name of the published editor in a text NAME or NAME:DIR. Raise UserError for another text."""
    name = model.partition(":")[0]
    if all(editor.name != name for editor in EDITORS):
        raise UserError(
            f"{model}: is no published editor; use {', '.join(editor.name for editor in EDITORS)}"
        )
    return name


def check_files(published: PublishedFolder, moved: Collection[str] = ()) -> None:
    """Raise UserError with the first file that is missing in the folder of an editor.

    The folder need not have the files of the keys in ``moved``, such as ``codec.path``.
    """
    editor, path = published.editor, published.path
    if not path.is_dir():
        raise UserError(
            f"{published}: there is no such folder; `xdub weights fetch {editor.name}` downloads the files"
        )
    for key, file in (("model.base", editor.weights), ("codec.path", CODEC)):
        if key not in moved and not (path / file).is_file():
            raise UserError(f"{path}: has no {file}; `xdub weights fetch {editor.name}` downloads it")
    if "audio.path" not in moved and not (path / editor.audio).is_dir():
        raise UserError(f"{path}: has no {editor.audio}; `xdub weights fetch {editor.name}` downloads it")
    if "model.prompt" not in moved:
        _prompt(published)


def published_recipe(published: PublishedFolder, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe of an editor with the locations of its files and the sizes of its network.

    ``settings`` override values of the recipe, but not the sizes. Raise UserError for a missing or damaged file.
    """
    return load_recipe(published.editor.name, with_files(published, settings))


def moved_files(recipe: Recipe) -> list[str]:
    """Return settings of the keys in `MOVABLE` that a recipe sets."""
    own = network_settings(recipe)
    return [f"{key}={json.dumps(own[key])}" for key in MOVABLE if key in own]


def check_settings(
    published: PublishedFolder, settings: Sequence[str], keys: Sequence[str] = DECIDED
) -> None:
    """Raise UserError for a setting of one of the ``keys`` that an editor's files decide."""
    for text in settings:
        key = ".".join(parse_override(text)[0])
        if key in keys:
            raise UserError(f"--set {text}: the files in {published.path} decide {key}")


def with_files(published: PublishedFolder, settings: Sequence[str] = ()) -> list[str]:
    """Return settings that name an editor's files and sizes, followed by ``settings``, which may move the files.

    The folder need not have a file that ``settings`` move. Raise UserError for a missing or damaged file, and for a
    setting of a size.
    """
    check_settings(published, settings, (*DECIDED, "model.base"))
    keys = {".".join(parse_override(text)[0]) for text in settings}
    moved = [key for key in MOVABLE if key in keys]
    check_files(published, moved)
    config = _network(published)
    facts: dict[str, Any] = {f"model.{key}": getattr(config, key) for key in SIZES}
    facts |= {"audio.dim": config.audio_dim, "model.base": published.weights}
    facts |= {"codec.path": published.path / CODEC, "audio.path": published.path / published.editor.audio}
    if "model.prompt" not in moved:
        facts["model.prompt"] = _prompt(published)
    return [*map(_override, facts.items()), *settings]


def _network(published: PublishedFolder) -> WanConfig:
    """Return the configuration of the network in an editor's file."""
    weights = WeightFolder(published.weights, (published.weights,))
    config = read_wan_config(weights, {original_name(name): shape for name, shape in weights.shapes.items()})
    if config.speech != "published" or config.audio_dim is None:
        raise UserError(
            f"{published.weights}: is not a dubbing editor: it has no projection of speech features"
        )
    return config


def _prompt(published: PublishedFolder) -> Path:
    path = next((published.path / name for name in PROMPTS if (published.path / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{published.path}: has no {' or '.join(PROMPTS)}; write it with `xdub weights prompt --umt5 UMT5 --out "
            f"{published.path / PROMPTS[0]}`"
        )
    return path


def _override(fact: tuple[str, Any]) -> str:
    key, value = fact
    return f"{key}={json.dumps(str(value.absolute()) if isinstance(value, Path) else value)}"
