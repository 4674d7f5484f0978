"""Files of a `WanDiT` in the original layout, in diffusers' and in ours.

original   diffusion_pytorch_model*.safetensors, or one file of any name (X-Dub, TBDub); config.json of Wan, if any
diffusers  config.json, diffusion_pytorch_model*.safetensors; additions.safetensors beside them
ours       config.json with the whole `WanConfig`, diffusion_pytorch_model*.safetensors
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from xdub.files.atomic import atomic_folder, write_json
from xdub.files.tensors import apply_umask, write_tensors
from xdub.files.weight_folder import WeightFolder
from xdub.model.lora import whole_state
from xdub.model.wan.config_files import read_wan_config, written_config
from xdub.model.wan.layouts import Layout
from xdub.model.wan.network import WanDiT
from xdub.perception.open_models.wan_config import CONFIG
from xdub.perception.open_models.wan_files import ADDITIONS
from xdub.perception.open_models.wan_names import beyond_wan, diffusers_name, original_name

SHARD = "5GB"
"""Largest size of one written file."""


def load_wan(weights: WeightFolder, dtype: torch.dtype | None = None) -> WanDiT:
    """Load a network from its files: eval mode, on the CPU, in ``dtype`` or in the number format of the files.

    Raise UserError for the first tensor that is missing, left over or of another shape.
    """
    shapes = {original_name(name): shape for name, shape in weights.shapes.items()}
    config = read_wan_config(weights, shapes)
    with torch.device("meta"):
        model = WanDiT(config)
    model.load_upstream(weights, dtype, whole=True)
    return model.eval()


def save_wan(model: WanDiT, folder: Path, layout: Layout) -> None:
    """Write a network, without adapters, as a folder of a layout that replaces an earlier one as a whole."""
    state = whole_state(model)
    config = written_config(model.cfg, layout, {name: tuple(value.shape) for name, value in state.items()})
    with atomic_folder(folder) as temporary:
        if layout == "diffusers":
            added = {name: value for name, value in state.items() if beyond_wan(name)}
            state = {diffusers_name(name): value for name, value in state.items() if name not in added}
            if added:
                write_tensors(added, temporary / ADDITIONS)
        write_json(temporary / CONFIG, config)
        _write_shards(state, temporary)


def _write_shards(state: Mapping[str, Tensor], folder: Path) -> None:
    pattern = "diffusion_pytorch_model{suffix}.safetensors"
    save_torch_state_dict(
        dict(state), folder, filename_pattern=pattern, max_shard_size=SHARD, metadata={"format": "pt"}
    )
    for file in folder.glob("*.safetensors"):
        apply_umask(file)
