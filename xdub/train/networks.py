"""Networks of a phase: the trained one with its initial weights, and the frozen ones of its losses."""

from __future__ import annotations

from pathlib import Path

import torch

from xdub.config import Recipe, base_path, check_phase, expert_of, phase_facts
from xdub.errors import UserError
from xdub.files.run_folder import ADAPTER_WEIGHTS, MODEL_WEIGHTS
from xdub.files.weight_folder import WeightFolder
from xdub.model.backbone import Backbone
from xdub.model.build import build_backbone, load_network
from xdub.model.codec import Codec
from xdub.model.frozen_base import store_frozen
from xdub.model.lora import TUNED, adapt, adapter_of, is_adapter, load_expert
from xdub.perception.open_models.wan_files import find_wan
from xdub.precision import frozen
from xdub.train.phases.common import PhaseContext


def build_model(
    recipe: Recipe, phase: str, codec: Codec, *, base: str | None, init_from: str | None
) -> Backbone:
    """Build the network of a phase in train mode; the phase trains the parameters with requires_grad.

    A phase without an expert starts from ``init_from`` if not None, else from the recipe's open weights. It trains all
    weights, or an adapter on frozen ones (`train.tune`). An expert is an adapter on the frozen ``base``; it starts from
    the adapter ``init_from`` if not None. Frozen weights are stored as `train.base_dtype` says.

    Raise UserError for settings with which the phase cannot train, and for weights that do not fit.
    """
    check_phase(recipe, phase)
    train, expert = recipe.for_phase(phase), expert_of(phase)
    adapter = adapter_of(recipe, phase)
    tunes = adapter == TUNED
    # Under an adapter, bf16 halves the memory at the start; DeepSpeed would round frozen weights anyway.
    half = adapter is not None and train.precision == "bf16"
    dtype = torch.bfloat16 if half else torch.float32
    start = init_from if expert is None else base
    if tunes and base_path(recipe) is None:
        raise UserError(
            "train.tune=adapter trains an adapter on open weights: name them with --set model.base=DIR or --init-from "
            "NAME:DIR"
        )
    if start is None:
        model = build_backbone(recipe, phase, codec, seed=train.seed, dtype=dtype)
    else:
        weights = start_weights(Path(start))
        if tunes and not is_adapter(weights):
            raise UserError(
                f"{start}: holds a whole network, which an adapter's export would not contain; name it with "
                "--set model.base=..., so that every later stage finds it"
            )
        seed = 0 if train.seed is None else train.seed
        model = load_network(recipe, phase, weights, codec, seed=seed, dtype=dtype, merge=not tunes)
    model.checkpointing = train.activation_checkpointing
    if expert is not None and init_from is not None:
        load_expert(model, expert, weights_file(Path(init_from)), recipe.lora)
    elif not (tunes and start is not None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            adapt(model, recipe, phase)
    store_frozen(model, train, phase)
    return model.train()


def start_weights(path: Path) -> WeightFolder:
    """Return the weights of a file, an export folder or a folder of open weights. Raise UserError if there are none."""
    if (weights := find_wan(path) if path.exists() else None) is not None:
        return weights
    file = weights_file(path)
    return WeightFolder(file, (file,))


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
