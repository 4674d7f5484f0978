"""A finished phase's weights, as the registry of models is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xdub.data.manifest import file_sha256
from xdub.train.networks import weights_file


def exported_model(export: Path) -> dict[str, Any]:
    """What the registry is told of a phase's exported weights; a new version for every finished training."""
    weights, config = weights_file(export), json.loads((export / "config.json").read_text("utf-8"))
    phase, step, recipe = config["phase"], config["step"], config["recipe"]
    return {
        "name": f"xdub-{recipe['name']}-{phase}",
        "source": export.resolve().as_uri(),
        "params": recipe | {"phase": phase, "step": step},
        "tags": {
            "sha256": file_sha256(weights),
            "bytes": str(weights.stat().st_size),
            "phase": phase,
            "step": str(step),
            "recipe": recipe["name"],
        },
    }
