"""Adapters as peft folders, and in the key forms that diffusers and ComfyUI load.

A layer's change is delta W = alpha / r * B A, with A [r, in] and B [out, r]. Every form keeps A, B, r and alpha.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xdub.errors import UserError
from xdub.export.source import Part
from xdub.files.tensors import read_tensors, write_tensors
from xdub.perception.open_models.wan_files import ADDITIONS
from xdub.perception.open_models.wan_names import beyond_wan, diffusers_name

if TYPE_CHECKING:
    from peft import LoraConfig as PeftConfig

PEFT_WEIGHTS = "adapter_model.safetensors"
"""File of a peft folder."""
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
"""File that diffusers' `load_lora_weights` looks for in a folder."""
COMFY_WEIGHTS = "lora.safetensors"
"""End of the name of the file for ComfyUI, behind the adapter's name."""
METADATA = "lora_adapter_metadata"
"""Entry of a file's header in which diffusers keeps rank and alpha."""
A, B = "lora_A", "lora_B"
"""Endings of the two matrices of an adapted layer."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One adapter: the two matrices of every layer, and tensors that were trained beside them."""

    name: str
    rank: int
    alpha: float
    layers: dict[str, tuple[Tensor, Tensor]]
    """Module, such as ``blocks.0.self_attn.q`` -> (A [r, in], B [out, r])."""
    additions: dict[str, Tensor]
    """Whole tensors beside the adapter, under the names that they have in the network."""

    def change(self, module: str) -> Tensor:
        """Return delta W [out, in] of a layer, in fp32."""
        first, second = self.layers[module]
        return self.alpha / self.rank * (second.float() @ first.float())

    def split(self) -> tuple[Adapter, Adapter]:
        """Return the adapter of the layers that plain Wan has, and one with everything else."""
        own = {module: pair for module, pair in self.layers.items() if not beyond_wan(module)}
        other = {module: pair for module, pair in self.layers.items() if module not in own}
        return replace(self, layers=own, additions={}), replace(self, layers=other)


def read_adapter(part: Part) -> Adapter:
    """Return the adapter of a phase. Raise UserError if the file does not fit the recipe's section ``lora``."""
    state, lora = read_tensors(part.file), part.recipe.lora
    pairs: dict[str, dict[str, Tensor]] = {}
    additions = {}
    for name, value in state.items():
        module, _, matrix = name.rpartition(".")
        if matrix in (A, B):
            pairs.setdefault(module, {})[matrix] = value
        else:
            additions[name] = value
    layers = {}
    for module, pair in pairs.items():
        if pair.keys() != {A, B} or pair[A].shape[0] != lora.rank or pair[B].shape[1] != lora.rank:
            raise UserError(
                f"{part.file}: {module} is not a layer of lora.rank={lora.rank}; export the phase again"
            )
        layers[module] = (pair[A], pair[B])
    if not layers:
        raise UserError(f"{part.file}: holds no adapter; use --form merged for a whole network")
    return Adapter(
        name=part.phase, rank=lora.rank, alpha=float(lora.alpha), layers=layers, additions=additions
    )


def write_peft(adapter: Adapter, folder: Path, base: str | None) -> list[str]:
    """Write a folder for `peft.PeftModel.from_pretrained`, and return its files.

    Args:
        base: hub name or folder of the base, which peft loads for `AutoPeftModel`.
    """
    config = _peft_config(adapter)
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    state = {
        f"base_model.model.{module}.{matrix}.weight": value
        for module, pair in adapter.layers.items()
        for matrix, value in zip((A, B), pair, strict=True)
    }
    write_tensors(_contiguous(state), folder / PEFT_WEIGHTS, {"format": "pt"})
    return ["adapter_config.json", PEFT_WEIGHTS, *_write_additions(adapter, folder, layers=False)]


def write_diffusers(adapter: Adapter, folder: Path) -> list[str]:
    """Write a file for diffusers' `load_lora_weights` and one for what its class lacks; return their names."""
    own, other = adapter.split()
    if not own.layers:
        raise UserError(f"{adapter.name}: adapts the speech branch alone, which diffusers' Wan does not have")
    layers = {diffusers_name(module): pair for module, pair in own.layers.items()}
    state = {
        f"transformer.{module}.{matrix}.weight": value
        for module, pair in layers.items()
        for matrix, value in zip((A, B), pair, strict=True)
    }
    config = {"r": own.rank, "lora_alpha": own.alpha, "target_modules": sorted(layers)}
    metadata = json.dumps({f"transformer.{key}": value for key, value in config.items()}, sort_keys=True)
    write_tensors(_contiguous(state), folder / DIFFUSERS_WEIGHTS, {"format": "pt", METADATA: metadata})
    return [DIFFUSERS_WEIGHTS, *_write_additions(other, folder)]


def write_comfy(adapter: Adapter, folder: Path) -> list[str]:
    """Write a file for ComfyUI's LoRA loader, and a second one for what plain Wan lacks; return their names."""
    own, other = adapter.split()
    if not own.layers:
        raise UserError(f"{adapter.name}: adapts the speech branch alone, which ComfyUI's Wan does not have")
    name = f"{adapter.name}_{COMFY_WEIGHTS}"
    write_tensors(_contiguous(_keyed(own, "diffusion_model.")), folder / name, {"format": "pt"})
    return [name, *_write_additions(other, folder)]


def _write_additions(adapter: Adapter, folder: Path, *, layers: bool = True) -> list[str]:
    """Write the tensors that the first file lacks, under original names; without any, write no file.

    They are adapters of the speech branch, and whole tensors that were trained beside the adapter.
    """
    state = (_keyed(adapter, "") if layers else {}) | adapter.additions
    if not state:
        return []
    write_tensors(_contiguous(state), folder / ADDITIONS, {"format": "pt"})
    return [ADDITIONS]


def _keyed(adapter: Adapter, prefix: str) -> dict[str, Tensor]:
    """Return the matrices and alpha of every layer under original names."""
    state: dict[str, Tensor] = {}
    for module, pair in adapter.layers.items():
        state |= {f"{prefix}{module}.{m}.weight": value for m, value in zip((A, B), pair, strict=True)}
        state[f"{prefix}{module}.alpha"] = torch.tensor(adapter.alpha)
    return state


def _peft_config(adapter: Adapter) -> PeftConfig:
    """Return peft's configuration of an adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        # peft divides by the rank, so a float works although its annotation is int.
        lora_alpha=adapter.alpha,  # ty: ignore[invalid-argument-type]
        # Whole names, because the ending of one could match a layer that has no adapter.
        target_modules=sorted(adapter.layers),
        lora_dropout=0.0,
        bias="none",
    )


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in state.items()}
