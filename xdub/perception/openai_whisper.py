"""OpenAI's file of a Whisper, such as `large-v2.pt`: its sizes, its weights, and their names in transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xdub.errors import UserError, error_reason
from xdub.perception.network_files import is_state_dict

SIZES = ("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer")
"""Sizes of the encoder that the file must name."""
OPENAI_NAMES = {
    "conv1": "conv1",
    "conv2": "conv2",
    "positional_embedding": "embed_positions.weight",
    "ln_post": "layer_norm",
    "attn_ln": "self_attn_layer_norm",
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
}
"""Name of a part of OpenAI's encoder, or of one of its blocks -> name in transformers."""
_TRANSFORMERS_NAME = re.compile(r"(?:layers\.(?P<block>\d+)\.)?(?P<part>[\w.]+?)(?P<end>\.weight|\.bias)?")
_OPENAI_NAME = re.compile(r"encoder\.(?:blocks\.(?P<block>\d+)\.)?(?P<part>[\w.]+?)(?P<end>\.weight|\.bias)?")


@dataclass(frozen=True, kw_only=True)
class OpenAIWhisper:
    """Content of the file."""

    sizes: Mapping[str, int]
    """`SIZES` of the encoder."""
    weights: Mapping[str, Tensor]
    """Weights of encoder and decoder under OpenAI's names; their values stay on the disk until they are read."""


def read_openai_whisper(path: str | Path) -> OpenAIWhisper:
    """Open the file; only tensors and numbers are unpickled. Raise UserError for any other content."""
    title = f"{path}: not OpenAI's file of a Whisper"
    try:
        content = _load(path)
    # A file of another kind may raise nearly any error.
    except Exception as error:
        raise UserError(f"{title} ({error_reason(error)}); copy or download it again") from error
    values: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    sizes, weights = values.get("dims"), values.get("model_state_dict")
    if not isinstance(sizes, Mapping) or not isinstance(weights, Mapping) or not is_state_dict(weights):
        raise UserError(
            f"{title}: it has no `dims` and `model_state_dict`; name the file as it was downloaded"
        )
    wrong = [name for name in SIZES if not isinstance(sizes.get(name), int) or sizes[name] < 1]
    if wrong:
        raise UserError(f"{title}: its dims have no size {wrong[0]}; copy or download it again")
    return OpenAIWhisper(sizes={name: sizes[name] for name in SIZES}, weights=dict(weights))


def transformers_names(weights: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Return the encoder's weights of OpenAI's file under the names of transformers.

    Raise UserError with the first encoder weight that has no such name.
    """
    state = {}
    for name, value in weights.items():
        match = _OPENAI_NAME.fullmatch(name)
        if not name.startswith("encoder."):
            continue
        part = OPENAI_NAMES.get(match["part"]) if match else None
        if match is None or part is None:
            raise UserError(f"{path}: not OpenAI's file of a Whisper: its encoder has a weight {name}")
        block = "" if match["block"] is None else f"layers.{match['block']}."
        state[f"{block}{part}{match['end'] or ''}"] = value
    return state


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of transformers' encoder under OpenAI's names: the inverse of `transformers_names`."""
    parts = {new: old for old, new in OPENAI_NAMES.items()}
    weights = {}
    for name, value in state.items():
        match = _TRANSFORMERS_NAME.fullmatch(name)
        assert match is not None
        whole = parts.get(match["part"] + (match["end"] or ""))
        block = "" if match["block"] is None else f"blocks.{match['block']}."
        weights[f"encoder.{block}{whole or parts[match['part']] + match['end']}"] = value
    return weights


def _load(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # Files from before torch 1.6 cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True)
