"""Networks of a phase: the trained one with its initial weights, and the frozen ones of its losses."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from xdub.config import Recipe, expert_of, phase_facts
from xdub.errors import UserError
from xdub.files.run_folder import ADAPTER_WEIGHTS, MODEL_WEIGHTS
from xdub.files.tensors import read_tensors
from xdub.model.backbone import Backbone
from xdub.model.build import build_backbone
from xdub.model.codec import Codec
from xdub.model.frozen_base import store_frozen
from xdub.model.lora import add_expert, load_expert
from xdub.model.offload import check_offload
from xdub.precision import frozen
from xdub.train.phases.common import PhaseContext


def build_model(
    recipe: Recipe, phase: str, codec: Codec, *, base: str | None, init_from: str | None
) -> Backbone:
    """Build the network of a phase in train mode; the phase trains the parameters with requires_grad.

    A phase without an expert trains everything, from ``init_from`` if not None. An expert is an adapter on the frozen
    ``base``, which is stored as `train.base_dtype` says; ``init_from`` is then an adapter to start from.
    """
    train = recipe.for_phase(phase)
    expert = expert_of(phase)
    model = build_backbone(recipe, phase, codec, seed=train.seed)
    model.checkpointing = train.activation_checkpointing
    weights = init_from if expert is None else base
    if weights is not None:
        model.load_upstream(load_weights(Path(weights)), weights)
    if expert is not None:
        if init_from is not None:
            load_expert(model, expert, weights_file(Path(init_from)), recipe.lora)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(train.seed)
                add_expert(model, expert, recipe.lora)
    store_frozen(model, train, phase)
    check_offload(model, train, phase)
    return model.train()


def weights_file(path: Path) -> Path:
    """Return the safetensors file of a path: the file itself, or the file in an export folder.

    Raise UserError if there is none.
    """
    candidates = [path] if path.suffix == ".safetensors" else [path / MODEL_WEIGHTS, path / ADAPTER_WEIGHTS]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path} has no weights: give a .safetensors file or the `export` folder of a trained phase"
    )


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file or export folder as fp32."""
    return {name: value.float() for name, value in read_tensors(weights_file(path)).items()}


def build_loss_context(recipe: Recipe, phase: str, codec: Codec, device: torch.device) -> PhaseContext:
    """Load the frozen networks that the phase's loss uses, and no others."""
    from xdub.perception.features import load_features
    from xdub.perception.identity.load import load_identity
    from xdub.perception.syncnet.load import load_sync

    names, config = phase_facts(phase).networks, recipe.perception

    return PhaseContext(
        phase=recipe.phase(phase),
        seed=recipe.seed_of(phase),
        codec=codec,
        sync=frozen(load_sync(config), device) if "sync" in names else None,
        identity=frozen(load_identity(config, recipe.video), device) if "identity" in names else None,
        features=frozen(load_features(config), device) if "features" in names else None,
    )
