"""Export of trained weights: OUT/<phase>/export/{model.safetensors | adapter.safetensors, config.json}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import xdub
from xdub.config import Recipe, expert_of
from xdub.files.atomic import atomic_folder, write_json
from xdub.files.content import file_sha256
from xdub.files.run_folder import ADAPTER_WEIGHTS, MODEL_WEIGHTS
from xdub.files.tensors import write_tensors
from xdub.model.lora import ALPHA, adapter_of, file_name
from xdub.train.context import TrainContext
from xdub.train.engine import Engine
from xdub.train.networks import weights_file
from xdub.train.state.checkpoint import Files, describe

CONFIG = "config.json"
"""{kind, phase, step, averaged, xdub, recipe} of the weights beside it."""


def export(
    folder: Path,
    engine: Engine,
    context: TrainContext,
    *,
    recipe: Recipe,
    phase: str,
    step: int,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the (averaged) weights in fp32, whole or not at all, on rank 0. Collective.

    ``metadata`` is the header of the file.
    """
    state, adapter = engine.trained_state(), adapter_of(recipe, phase)
    if context.rank == 0:
        if adapter is None:
            state |= {name: value.detach().cpu() for name, value in engine.buffers()}
        else:
            state = {file_name(name, adapter): value for name, value in state.items()}
            metadata = {**(metadata or {}), ALPHA: str(recipe.lora.alpha)}
        config: dict[str, Any] = {
            "kind": "adapter" if expert_of(phase) else "model",
            "phase": phase,
            "step": step,
            "averaged": recipe.for_phase(phase).ema > 0,
            "xdub": xdub.__version__,
            "recipe": recipe.to_dict(),
        }
        write_export(folder, state, config, metadata)
    context.gather(None)


def write_export(
    folder: Path,
    state: Mapping[str, Tensor],
    config: dict[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a folder of weights and their config; it replaces an older one as a whole."""
    with atomic_folder(folder) as temporary:
        write_tensors(
            {name: value.contiguous() for name, value in state.items()},
            temporary / (ADAPTER_WEIGHTS if config["kind"] == "adapter" else MODEL_WEIGHTS),
            metadata,
        )
        write_json(temporary / CONFIG, config)


def export_files(folder: Path) -> tuple[Files, int]:
    """Return the files of an export with size and hash, and its step.

    Raise OSError or ValueError for a folder that is no export any more.
    """
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {name: describe(folder / name) for name in names}
    return files, int(json.loads((folder / CONFIG).read_text("utf-8")).get("step", 0))


def exported_model(folder: Path) -> dict[str, Any]:
    """Return the arguments of `Journal.model` for exported weights.

    Every finished training is a new version in the registry.
    """
    weights, config = weights_file(folder), json.loads((folder / CONFIG).read_text("utf-8"))
    phase, step, recipe = config["phase"], config["step"], config["recipe"]
    return {
        "name": f"xdub-{recipe['name']}-{phase}",
        "source": folder.resolve().as_uri(),
        "params": recipe | {"phase": phase, "step": step},
        "tags": {
            "sha256": file_sha256(weights),
            "bytes": str(weights.stat().st_size),
            "phase": phase,
            "step": str(step),
            "recipe": recipe["name"],
        },
    }
