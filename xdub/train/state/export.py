"""Trained weights as others read them: EXPORT/{model.safetensors | adapter.safetensors, config.json}."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import xdub
from xdub.config import Recipe
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
    """The folder appears at once; an older one is replaced."""
    temporary, old = (folder.with_name(f".{folder.name}.{what}") for what in ("tmp", "old"))
    for stale in (temporary, old):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        temporary / f"{config['kind']}.safetensors",
    )
    (temporary / "config.json").write_text(json.dumps(config, indent=1))
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
