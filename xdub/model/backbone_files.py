"""Backbones as folders: those of this project, and open weights of the Wan family in the layouts of their releases."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import xdub
from xdub.config import Recipe, expert_of, load_recipe, recipe_from_dict
from xdub.errors import UserError
from xdub.files.atomic import atomic_folder, write_json
from xdub.files.run_folder import MODEL_WEIGHTS
from xdub.files.tensors import write_tensors
from xdub.files.weight_folder import WeightFolder
from xdub.model.adapter_export import AdapterExport, find_adapter_export
from xdub.model.backbone import Backbone
from xdub.model.build import load_network, open_weights, tuned_open_weights
from xdub.model.bundle import RECIPE, bundle_path, bundle_weights
from xdub.model.dit import DiTConfig, VideoDiT
from xdub.model.licences import require_licence, require_one, weights_licences
from xdub.model.lora import fill_expert, merge_adapter, whole_state
from xdub.model.published import EDITORS
from xdub.model.wan.config_files import own_config, portable
from xdub.model.wan.files import load_wan, save_wan
from xdub.model.wan.layouts import Layout
from xdub.model.wan.network import WanDiT
from xdub.perception.open_models.store import required_folder
from xdub.perception.open_models.table import OPEN_MODELS
from xdub.perception.open_models.wan_config import CONFIG, OWN_KEY, read_json_object
from xdub.perception.open_models.wan_files import find_wan


def load_backbone(
    folder: str | Path, dtype: torch.dtype | None = None, *, base: str | Path | None = None
) -> Backbone:
    """Load a backbone of any layout, recognised by its files: eval mode, on the CPU.

    Args:
        folder: a release of Wan 2.1 T2V, Wan 2.2 TI2V, X-Dub or TBDub (original names, diffusers' or ComfyUI's; a
            folder, a pipeline's folder or one file), a folder of `save_backbone`, a phase's export, an adapter of
            `xdub export` in any form, or a model folder, whose editor is loaded. Where there is no such folder, a name
            of the registry, such as ``wan2.2-ti2v-5b``, stands for the model's folder on this machine.
        dtype: number format. None: that of the files; a network with a merged adapter is fp32. In bf16
            the sum of a merge is rounded to bf16.
        base: the weights under an adapter of `xdub export`, as ``folder``: open weights, or the editor under an expert.
            None: those that the export records.

    Raises:
        UserError: there are no such weights, a file is damaged, or a tensor is missing, left over or of another shape.
    """
    path = _existing(folder)
    export = find_adapter_export(path)
    if export is not None:
        return _adapted(export, base, dtype or torch.float32)
    if base is not None:
        raise UserError(f"{path}: is no adapter of `xdub export`, so it has no base; omit base={base}")
    own = _own_backbone(path, dtype)
    if own is not None:
        return own if dtype is None else own.to(dtype)
    weights = find_wan(path)
    if weights is not None:
        require_one(weights_licences(weights.path))
    if weights is None:
        raise UserError(
            f"{path}: holds no backbone; give a folder of Wan 2.1 T2V, Wan 2.2 TI2V, X-Dub or TBDub, a phase's export "
            "or a model folder"
        )
    return load_wan(weights, dtype)


def _existing(folder: str | Path) -> Path:
    """Return the file or folder of weights with a path or a name of the registry. Raise UserError if there is none."""
    path = bundle_path(folder)
    if path.exists():
        return path
    entry = next((model for model in OPEN_MODELS if model.role == str(folder)), None)
    if entry is None:
        models = [model for model in OPEN_MODELS if model.repo == str(folder) and model.shapes is not None]
        commands = " or ".join(f"`xdub weights fetch {model.role}`" for model in models)
        fix = f"; {commands} downloads it, and load_backbone({models[0].role!r}) loads it" if models else ""
        raise UserError(f"{path}: there is no such file or folder of weights{fix}")
    if any(editor.name == entry.role for editor in EDITORS):
        require_licence(entry.role)
    home = required_folder(entry.role)
    return home / entry.signed[0] if len(entry.signed) == 1 else home


def _adapted(export: AdapterExport, base: str | Path | None, dtype: torch.dtype) -> Backbone:
    """Return the network under an adapter of an export, into which the adapter is merged."""
    location = export.base if base is None else base
    if location is None:
        raise UserError(
            f"{export.folder}: does not record the base of its adapter; name it with load_backbone(..., base=FOLDER), "
            "e.g. for the `merged` export of the editor"
        )
    name = expert_of(export.phase)
    if name is None:
        weights = open_weights(str(_existing(location)))
        require_one(weights_licences(weights.path))
        return tuned_open_weights(export.recipe, export.phase, weights, export.weights, dtype=dtype).eval()
    model = load_backbone(location, dtype)
    fill_expert(model, name, export.folder, dict(export.weights.tensors()), export.recipe.lora)
    merge_adapter(model, name)
    return model.to(dtype).eval()


def save_backbone(backbone: nn.Module, folder: str | Path, layout: Layout = "ours") -> None:
    """Write a backbone, without adapters, as a folder that replaces an earlier one as a whole.

    Args:
        layout: ``original`` (Wan's and X-Dub's names), ``diffusers`` (a `WanTransformer3DModel`; tensors that it does
            not have are in a second file), or ``ours``, which any backbone has.

    Raise UserError for a layout that the network does not have.
    """
    if isinstance(backbone, WanDiT):
        save_wan(backbone, Path(folder), layout)
    elif isinstance(backbone, VideoDiT) and layout == "ours":
        with atomic_folder(Path(folder)) as temporary:
            write_tensors(whole_state(backbone), temporary / MODEL_WEIGHTS)
            write_json(temporary / CONFIG, {OWN_KEY: portable(backbone.cfg), "version": xdub.__version__})
    else:
        raise UserError(f"layout={layout}: the paper's network has the layout ours only")


def _own_backbone(path: Path, dtype: torch.dtype | None) -> Backbone | None:
    """Return the backbone of a folder of this project; None for another folder and for a `WanDiT`."""
    if (path / RECIPE).is_file():
        return _trained(
            load_recipe(path / RECIPE, recorded=True), "editor", bundle_weights(path, "editor"), dtype
        )
    config, weights = read_json_object(path / CONFIG), path / MODEL_WEIGHTS
    if "recipe" in config and "phase" in config and weights.is_file():
        return _trained(recipe_from_dict(config["recipe"]), config["phase"], weights, dtype)
    values = config.get(OWN_KEY)
    if not isinstance(values, dict) or values.get("kind") != "xdub":
        return None
    model = VideoDiT(own_config(DiTConfig, values, path / CONFIG))
    model.load_upstream(WeightFolder(weights, (weights,)))
    return model.eval()


def _trained(recipe: Recipe, phase: str, file: Path, dtype: torch.dtype | None) -> Backbone:
    """Return the backbone of a phase with the weights of its export."""
    weights = WeightFolder(file, (file,))
    return load_network(recipe, phase, weights, dtype=dtype or torch.float32).eval()
