"""SyncNets by name and by file: the one in the package, those of `xdub train syncnet`, and SyncNet v2.

A SyncNet replaces the lip-sync expert of Eq. 12; `xdub.perception.syncnet.base` has the interface of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from xdub.config import PerceptionConfig, required_path
from xdub.config.shipped import shipped_weights
from xdub.errors import UserError, error_reason
from xdub.files.tensors import read_metadata
from xdub.perception.network_files import read_state_dict, shapes_differ
from xdub.perception.syncnet.base import SyncExpert
from xdub.perception.syncnet.own import OwnSyncNet, OwnSyncNetConfig
from xdub.perception.syncnet.tiny import TinySyncNet, TinySyncNetConfig
from xdub.perception.syncnet.v2 import syncnet_v2

PACKAGED = "syncnet.safetensors"
"""File of the shipped network."""
MOST_BANDS = 128
"""Largest number of log-mel bands of a `TinySyncNet`; wider inputs are features of another audio encoder."""


def load_sync(cfg: PerceptionConfig) -> SyncExpert:
    """Load the network that a recipe's ``perception`` section selects for the role ``sync``.

    ``tiny`` is the shipped network, for rendered speakers. ``syncnet`` is a file of `xdub train syncnet` or the file
    `syncnet_v2.model`, which are recognised by their content.
    """
    if cfg.sync == "tiny":
        return load_sync_file(shipped_weights(PACKAGED))
    return load_sync_file(required_path(cfg, "sync"))


def load_sync_file(path: str | Path) -> SyncExpert:
    """Load a SyncNet of any kind, frozen, in eval mode. Raise UserError if the file is missing or holds no SyncNet."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such SyncNet file; train one with `xdub train syncnet`")
    state, metadata = read_state_dict(path, "a SyncNet"), read_metadata(path)
    if "network" not in metadata:
        return syncnet_v2(state, path)
    net = _build(path, metadata, state)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def sync_metadata(net: OwnSyncNet | TinySyncNet) -> dict[str, str]:
    """Return the header of a network's safetensors file: its kind and sizes."""
    return {"network": net.name, "config": json.dumps(asdict(net.cfg))}


def _build(
    path: str | Path, metadata: Mapping[str, str], state: Mapping[str, Tensor]
) -> OwnSyncNet | TinySyncNet:
    """Build the network of a file's header, without its weights. Raise UserError if the file has other weights."""
    kind = metadata["network"]
    if kind not in (OwnSyncNet.name, TinySyncNet.name):
        raise UserError(f"{path} holds {kind}, not a SyncNet")
    try:
        config: dict[str, Any] = json.loads(metadata["config"])
        bands = config.get("audio_dim", 0)
        if bands > MOST_BANDS:
            raise UserError(
                f"{path}: was trained on {bands} features of an audio encoder, but a SyncNet now computes its own "
                "from the wave; train one with `xdub train syncnet`"
            )
        build = _builder(kind, config)
        # A damaged header may have sizes for which the memory does not suffice.
        if not shapes_differ(build, state):
            return build()
        reason = "its weights do not fit its header"
    except UserError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        IndexError,
        RuntimeError,
    ) as error:
        reason = f"its header is damaged: {error_reason(error)}"
    raise UserError(f"{path}: not a SyncNet ({reason}); copy it again or train one with `xdub train syncnet`")


def _builder(kind: str, config: dict[str, Any]) -> Callable[[], OwnSyncNet | TinySyncNet]:
    """Return the function that builds the network of a header with random weights."""
    if kind == OwnSyncNet.name:
        own = OwnSyncNetConfig(**config)
        return lambda: OwnSyncNet(own)
    config["mouth_box"] = tuple(config["mouth_box"])
    tiny = TinySyncNetConfig(**config)
    return lambda: TinySyncNet(tiny)
