"""Files of a `WanDiT` in the original layout, in diffusers' and in ours.

original   diffusion_pytorch_model*.safetensors, or one file of any name (X-Dub, TBDub); config.json of Wan, if any
diffusers  config.json, diffusion_pytorch_model*.safetensors; additions.safetensors beside them
ours       config.json with the whole `WanConfig`, diffusion_pytorch_model*.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

import xdub
from xdub.config import ModelConfig
from xdub.errors import UserError
from xdub.files.atomic import atomic_folder, write_json
from xdub.files.tensors import read_shapes, write_tensors
from xdub.geometry import CodecGeometry
from xdub.model.lora import whole_state
from xdub.model.wan.config import WanConfig
from xdub.model.wan.layouts import Layout, beyond_wan
from xdub.model.wan.network import WanDiT
from xdub.model.weight_folder import INDEX, WeightFolder, indexed_files
from xdub.perception.open_models.wan_names import diffusers_name, original_name

CONFIG = "config.json"
"""File of a layout's configuration."""
ADDITIONS = "additions.safetensors"
"""File of the tensors that diffusers' class does not have, under their original names."""
HEAD_DIM = 128
"""Width of an attention head in all published Wans; a file without a configuration does not state it."""
OWN_KEY = "xdub"
"""Key of config.json in our layout."""
SHARD = "5GB"
"""Largest size of one written file."""


def find_wan(path: Path) -> WeightFolder | None:
    """Return the weights of a Wan in a file or folder; None if there is none.

    A pipeline keeps them below ``transformer``. Raise UserError for a damaged file, and for a folder with several.
    """
    if path.is_file():
        return WeightFolder(path, (path,)) if path.suffix == ".safetensors" and _is_wan(path) else None
    if (path / "transformer").is_dir():
        path = path / "transformer"
    additions = (path / ADDITIONS,) if (path / ADDITIONS).is_file() else ()
    indices = sorted(path.glob(f"*{INDEX}"))
    for index in indices:
        files = indexed_files(index)
        if _is_wan(*files):
            return WeightFolder(path, files + additions)
    candidates = [
        file for file in sorted(path.glob("*.safetensors")) if file.name != ADDITIONS and _is_wan(file)
    ]
    if len(candidates) > 1:
        names = ", ".join(file.name for file in candidates)
        raise UserError(f"{path}: holds several networks ({names}); name one of these files")
    return WeightFolder(path, (candidates[0], *additions)) if candidates else None


def _is_wan(*files: Path) -> bool:
    names = {original_name(name) for file in files for name in read_shapes(file)}
    return {"patch_embedding.weight", "head.head.weight"} <= names


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
    with atomic_folder(folder) as temporary:
        if layout == "diffusers":
            added = {name: value for name, value in state.items() if beyond_wan(name)}
            state = {diffusers_name(name): value for name, value in state.items() if name not in added}
            if added:
                write_tensors(added, temporary / ADDITIONS)
        write_json(temporary / CONFIG, _config(model.cfg, layout))
        _write_shards(state, temporary)


def _write_shards(state: Mapping[str, Tensor], folder: Path) -> None:
    pattern = "diffusion_pytorch_model{suffix}.safetensors"
    save_torch_state_dict(
        dict(state), folder, filename_pattern=pattern, max_shard_size=SHARD, metadata={"format": "pt"}
    )


def _config(cfg: WanConfig, layout: Layout) -> dict[str, Any]:
    """Return the content of config.json."""
    channels, heads = cfg.geometry.channels, cfg.num_heads
    common = dict(ffn_dim=cfg.inner, freq_dim=cfg.freq_dim, num_layers=cfg.num_layers, eps=cfg.eps)
    if layout == "ours":
        return {OWN_KEY: portable(cfg), "version": xdub.__version__}
    if layout == "diffusers":
        return {
            "_class_name": "WanTransformer3DModel",
            "patch_size": list(cfg.patch),
            "num_attention_heads": heads,
            "attention_head_dim": cfg.hidden_size // heads,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": cfg.text_dim,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            **common,
        }
    return {
        "_class_name": "WanModel",
        "dim": cfg.hidden_size,
        "num_heads": heads,
        "in_dim": channels,
        "out_dim": channels,
        "text_len": 512,
        "model_type": "t2v" if cfg.geometry.space == 8 else "ti2v",
        **common,
    }


def portable(cfg: ModelConfig) -> dict[str, Any]:
    """Return the plain values of a configuration, without paths of this machine."""
    return asdict(cfg) | {"base": None, "prompt": None}


def read_wan_config(weights: WeightFolder, shapes: Mapping[str, tuple[int, ...]]) -> WanConfig:
    """Return the configuration of weights: the folder's own, or one that leads to the shapes.

    ``shapes`` have original names. Raise UserError for a network of another family.
    """
    folder = weights.path if weights.path.is_dir() else weights.path.parent
    values = _read_json(folder / CONFIG)
    if OWN_KEY in values:
        return _own_config(values[OWN_KEY], folder / CONFIG)
    return _inferred(shapes, values, weights.path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); download it again") from error
    return values if isinstance(values, dict) else {}


def _own_config(values: Mapping[str, Any], path: Path) -> WanConfig:
    try:
        return WanConfig(**config_fields(values))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is not the configuration of a Wan ({error}); save it again") from error


def config_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a configuration from the plain values of `portable`.

    Raise TypeError or KeyError for values of another kind.
    """
    return {**values, "geometry": CodecGeometry(**values["geometry"]), "patch": tuple(values["patch"])}


def _inferred(shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Any], path: Path) -> WanConfig:
    """Return the configuration that leads to ``shapes``; ``values`` of config.json state what shapes do not."""
    try:
        size, channels, *patch = shapes["patch_embedding.weight"]
        blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")}
        dim = values.get("attention_head_dim", HEAD_DIM)
        heads = values.get("num_attention_heads", values.get("num_heads", size // dim))
        config = WanConfig(
            kind="wan",
            hidden_size=size,
            num_heads=int(heads),
            num_layers=1 + max(blocks),
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            patch=(patch[0], patch[1], patch[2]),
            text_dim=shapes["text_embedding.0.weight"][1],
            freq_dim=shapes["time_embedding.0.weight"][1],
            eps=float(values.get("eps", 1e-6)),
            order="reference_first",
            masked_input="mask_embedding.weight" in shapes,
            geometry=CodecGeometry(channels=channels, time=4, space=16 if channels == 48 else 8),
        )
        if "audio_embedding.proj_in.weight" in shapes:
            width, features = shapes["audio_embedding.proj_in.weight"]
            config = replace(
                config, speech="published", audio_dim=features, speech_width=width, round_timesteps=True
            )
        elif "audio_adapter.proj.weight" in shapes:
            config = replace(config, audio_dim=shapes["audio_adapter.proj.weight"][1])
        return config
    except (KeyError, ValueError, TypeError, ZeroDivisionError, IndexError) as error:
        raise UserError(
            f"{path}: is not a Wan that can be loaded ({error}); use Wan 2.1 T2V, Wan 2.2 TI2V, X-Dub or TBDub"
        ) from error
