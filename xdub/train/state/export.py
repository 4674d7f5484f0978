"""Trained weights as others read them: EXPORT/{model.safetensors | adapter.safetensors, config.json}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import xdub
from xdub.config import Recipe
from xdub.files.atomic import atomic_folder, write_json
from xdub.train.context import TrainContext
from xdub.train.engine import Engine


def export(
    folder: Path,
    engine: Engine,
    context: TrainContext,
    *,
    recipe: Recipe,
    phase: str,
    expert: str | None,
    step: int,
) -> None:
    """Write the (averaged) weights in fp32, whole or not at all. Collective; rank 0 writes."""
    state = engine.trained_state()
    if context.rank == 0:
        if expert is None:
            state |= {name: value.detach().cpu() for name, value in engine.buffers()}
        else:  # the names of xdub.model.lora.expert_state
            state = {name.removesuffix(f".{expert}.weight"): value for name, value in state.items()}
        config: dict[str, Any] = {
            "kind": "adapter" if expert else "model",
            "phase": phase,
            "step": step,
            "averaged": recipe.for_phase(phase).ema > 0,
            "xdub": xdub.__version__,
            "recipe": recipe.to_dict(),
        }
        write_export(folder, state, config)
    context.gather(None)


def write_export(folder: Path, state: dict, config: dict[str, Any]) -> None:
    """Write a folder of weights and their config; it replaces an older one as a whole."""
    with atomic_folder(folder) as temporary:
        save_file(
            {name: value.contiguous() for name, value in state.items()},
            temporary / f"{config['kind']}.safetensors",
        )
        write_json(temporary / "config.json", config)
