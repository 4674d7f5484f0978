"""config.json of a `WanDiT`: written for every layout, and read from every layout.

What config.json states is binding, so a tensor that contradicts it is an error. Shapes decide what it does not state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import xdub
from xdub.config import ModelConfig
from xdub.errors import UserError
from xdub.files.weight_folder import WeightFolder
from xdub.geometry import CodecGeometry
from xdub.model.wan.config import WanConfig
from xdub.model.wan.layouts import Layout
from xdub.perception.open_models.wan_config import CLASSES, CONFIG, EPS, MODEL_TYPES, OWN_KEY, config_of

HEAD_DIM = 128
"""Width of an attention head in all published Wans; a file without a configuration does not state it."""
PICTURE_KEYS = ("image_dim", "added_kv_proj_dim")
"""Keys of diffusers for networks that read a picture's embedding."""
PICTURE_PARTS = {"img_emb", "image_embedder", "k_img", "v_img", "add_k_proj", "add_v_proj"}
"""Parts of the names of tensors that only such a network has."""

ConfigT = TypeVar("ConfigT", bound=ModelConfig)
"""Class of a backbone's configuration."""
Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""


def written_config(cfg: WanConfig, layout: Layout, shapes: Shapes) -> dict[str, Any]:
    """Return the content of config.json for a network with tensors of ``shapes`` (original names).

    A release's layout cannot state everything, so the whole configuration is added where the release's keys would lead
    to another network.
    """
    own = {OWN_KEY: portable(cfg), "version": xdub.__version__}
    if layout == "ours":
        return own
    values = _released_config(cfg, layout)
    exact = portable(_inferred(shapes, values, Path(CONFIG))) == portable(cfg)
    return values if exact else values | own


def _released_config(cfg: WanConfig, layout: Layout) -> dict[str, Any]:
    """Return the keys of Wan's releases, or of diffusers."""
    channels, heads = cfg.geometry.channels, cfg.num_heads
    common = dict(ffn_dim=cfg.inner, freq_dim=cfg.freq_dim, num_layers=cfg.num_layers, eps=cfg.eps)
    if layout == "diffusers":
        return {
            "_class_name": "WanTransformer3DModel",
            "patch_size": list(cfg.patch),
            "num_attention_heads": heads,
            "attention_head_dim": cfg.hidden_size // heads,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": cfg.text_dim,
            "cross_attn_norm": cfg.cross_attn_norm,
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
        # The releases do not state it, because all of them have this norm.
        **({} if cfg.cross_attn_norm else {"cross_attn_norm": False}),
        **common,
    }


def portable(cfg: ModelConfig) -> dict[str, Any]:
    """Return the plain values of a configuration, without paths of this machine."""
    return asdict(cfg) | {"base": None, "prompt": None}


def read_wan_config(weights: WeightFolder, shapes: Shapes) -> WanConfig:
    """Return the configuration of weights: the folder's own, or one that leads to the shapes.

    ``shapes`` have original names. Raise UserError for a network of another family.
    """
    path, values = config_of(weights)
    if OWN_KEY in values:
        return own_config(WanConfig, values[OWN_KEY], path)
    return _inferred(shapes, values, weights.path)


def own_config(kind: type[ConfigT], values: Any, path: Path) -> ConfigT:
    """Return the configuration of a class from the plain values of `portable`.

    Raise UserError with the file ``path`` for values of another kind.
    """
    try:
        fields: dict[str, Any] = {
            **values,
            "geometry": CodecGeometry(**values["geometry"]),
            "patch": tuple(values["patch"]),
        }
        return kind(**fields)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: is not the configuration of a backbone ({error}); save it again") from error


def _unsupported(values: Mapping[str, Any], shapes: Shapes) -> Iterator[str]:
    """Yield ``key=value`` of every setting of a configuration that `WanDiT` does not have."""
    allowed: dict[str, tuple[object, ...]] = {
        "_class_name": CLASSES,
        "model_type": MODEL_TYPES,
        "qk_norm": ("rms_norm_across_heads", True),
        "window_size": ([-1, -1],),
    }
    # Some copies of a plain Wan state these keys without having the tensors.
    if any(PICTURE_PARTS & set(name.split(".")) for name in shapes):
        allowed |= dict.fromkeys(PICTURE_KEYS, (None,))
    for key, right in allowed.items():
        if key in values and values[key] not in right:
            yield f"{key}={values[key]}"
    for inner, outer in (("in_channels", "out_channels"), ("in_dim", "out_dim")):
        out = values.get(outer)
        if inner in values and out is not None and out != values[inner]:
            yield f"{inner}={values[inner]} with {outer}={out}"
    patch = values.get("patch_size")
    if isinstance(patch, list) and patch[:1] != [1]:
        yield f"patch_size={patch}"


def _inferred(shapes: Shapes, values: Mapping[str, Any], path: Path) -> WanConfig:
    """Return the configuration that ``values`` of config.json and the shapes lead to.

    Raise UserError with the key and value that this network does not have.
    """
    unsupported = next(_unsupported(values, shapes), None)
    if unsupported is not None:
        raise UserError(
            f"{path}: {unsupported} in config.json is no network that can be loaded; use Wan 2.1 T2V, Wan 2.2 TI2V, "
            "X-Dub or TBDub"
        )
    try:
        return _with_speech(_without_speech(shapes, values), shapes)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, IndexError) as error:
        raise UserError(
            f"{path}: is not a Wan that can be loaded ({error}); use Wan 2.1 T2V, Wan 2.2 TI2V, X-Dub or TBDub"
        ) from error


def _without_speech(shapes: Shapes, values: Mapping[str, Any]) -> WanConfig:
    """Return the configuration of everything but speech."""
    width, channels, *patch = shapes["patch_embedding.weight"]
    blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")}
    channels = values.get("in_channels", values.get("in_dim", channels))
    head_dim = values.get("attention_head_dim", HEAD_DIM)
    size = values.get("dim", width)
    heads = values.get("num_attention_heads", values.get("num_heads", size // head_dim))
    if {"attention_head_dim", "num_attention_heads"} <= values.keys():
        size = heads * head_dim
    normed = any(name.startswith("blocks.") and ".norm3." in name for name in shapes)
    frames, rows, columns = values.get("patch_size", patch)
    return WanConfig(
        kind="wan",
        hidden_size=int(size),
        num_heads=int(heads),
        num_layers=int(values.get("num_layers", 1 + max(blocks))),
        ffn_dim=int(values.get("ffn_dim", shapes["blocks.0.ffn.0.weight"][0])),
        patch=(int(frames), int(rows), int(columns)),
        text_dim=int(values.get("text_dim", shapes["text_embedding.0.weight"][1])),
        freq_dim=int(values.get("freq_dim", shapes["time_embedding.0.weight"][1])),
        eps=float(values.get("eps", EPS)),
        cross_attn_norm=bool(values.get("cross_attn_norm", normed)),
        order="reference_first",
        masked_input="mask_embedding.weight" in shapes,
        geometry=CodecGeometry(channels=int(channels), time=4, space=16 if channels == 48 else 8),
    )


def _with_speech(config: WanConfig, shapes: Shapes) -> WanConfig:
    """Return the configuration with the speech that the tensors have."""
    if "audio_embedding.proj_in.weight" in shapes:
        width, features = shapes["audio_embedding.proj_in.weight"]
        return replace(
            config, speech="published", audio_dim=features, speech_width=width, round_timesteps=True
        )
    if "audio_adapter.proj.weight" in shapes:
        return replace(config, audio_dim=shapes["audio_adapter.proj.weight"][1])
    return config
