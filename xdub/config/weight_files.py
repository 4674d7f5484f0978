"""Check that every weight file a recipe needs exists before a run starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xdub.config.phases import phase_facts
from xdub.config.recipe import Recipe
from xdub.errors import UserError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""Form of a path that may also be the name of a model on the hub, which only loading can check."""

FILES = {
    ("identity", "arcface"): "the backbone.pth of an ArcFace r50 or r100",
    ("sync", "syncnet"): "a file of `xdub.fit.syncnet`",
    ("features", "clip"): "a folder or hub name of a CLIP model",
}
"""(role, network) -> description of the file that the network needs."""


def check_weights(recipe: Recipe, stages: Sequence[str]) -> None:
    """Raise UserError for weights that one of the stages (phases and "pairs") needs and that are unnamed or missing."""
    codec, audio, perception = recipe.codec, recipe.audio, recipe.perception
    if codec.kind == "wan" and codec.path is None:
        raise UserError("codec.kind=wan needs its weights: --set codec.path=FOLDER or a hub name")
    if audio.kind == "whisper" and audio.path is None:
        raise UserError("audio.kind=whisper needs its weights: --set audio.path=FOLDER or a hub name")
    named = {"codec.path": codec.path, "audio.path": audio.path}
    for role in ("identity", "sync", "features"):
        path, network = getattr(perception, f"{role}_path"), getattr(perception, role)
        users = [stage for stage in stages if role in _networks(stage)]
        if users and path is None and (role, network) in FILES:
            description = FILES[role, network]
            raise UserError(
                f"{users[0]}: perception.{role}={network} needs perception.{role}_path, {description}: "
                f"--set perception.{role}_path=PATH"
            )
        named[f"perception.{role}_path"] = path
    for key, path in named.items():
        if path is not None and not HUB_NAME.fullmatch(path) and not Path(path).exists():
            raise UserError(f"{key}={path}: there is no such file or folder")


def _networks(stage: str) -> tuple[str, ...]:
    """Return the roles of the perception section that a stage loads."""
    return ("identity",) if stage == "pairs" else phase_facts(stage).networks
