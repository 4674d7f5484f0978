"""Comparison of a checkpoint's facts with those of the run that wants to continue it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from xdub.config import TrainConfig, phase_facts, recipe_from_dict, without_paths
from xdub.model.lora import TUNED, adapter_of

MUST_MATCH = {
    "phase": "choose another --out",
    "global_batch": "resume with the same train.global_batch, or the order of the samples would change",
    "seed": "resume with the same seed, or the noise would change",
    "ema": "resume with the same train.ema",
    "network": "the network is another one; resume with the same train.tune, model, codec, audio and lora sections",
    "base": "the base weights have changed; start again in another --out",
    "window_stride": "resume with the same train.window_stride, or the windows would change",
    "data": "the data have changed; start again in another --out",
}
"""Facts that decide whether a checkpoint continues the same run, with the remedy when they differ."""


def network_digest(recipe: Mapping[str, Any], phase: str, *, paths: bool) -> str:
    """Return a digest of the sections that fix a phase's network, with or without the locations of frozen networks.

    Args:
        recipe: plain values of a recipe; keys that an earlier version did not have get their defaults.
    """
    parsed = recipe_from_dict(recipe)
    sections = parsed.to_dict()
    located = sections if paths else without_paths(sections)
    for name in ("codec", "audio"):
        if located[name]["path"] is not None:
            located[name]["path"] = str(Path(located[name]["path"]).absolute())
    text = json.dumps(_deciding(located, phase, adapter_of(parsed, phase)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _deciding(sections: Mapping[str, Any], phase: str, adapter: str | None) -> list[Any]:
    """Return the sections that decide a phase's network and its inputs."""
    if phase_facts(phase).trains == "syncnet":
        overrides = {field.name for field in fields(TrainConfig)}
        own = {key: value for key, value in sections["syncnet"].items() if key not in overrides}
        return [sections["video"], sections["codec"], own]
    names = ["video", "codec", "audio", "model"] + (["lora"] if adapter is not None else [])
    return [sections[name] for name in names] + (["adapter"] if adapter == TUNED else [])


def difference(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Return words for the first difference between the facts of two runs; None if one continues the other.

    Frozen networks are compared by content. Checkpoints of earlier versions know their locations only.
    """
    by_content = bool(recorded.get("networks"))
    if by_content:
        for role, digest in recorded["networks"].items():
            now = current.get("networks", {}).get(role, digest)
            if now != digest:
                return (
                    f"was written with another {role} network ({_short(digest)}), this run has {_short(now)}: "
                    "resume with the same weights, or start again in another --out"
                )
    for key, remedy in MUST_MATCH.items():
        old, new = recorded.get(key), current.get(key)
        if key == "network":
            old, new = (
                network_digest(facts["recipe"], current["phase"], paths=not by_content)
                for facts in (recorded, current)
            )
        if old != new:
            return f"was written with {key}={_short(old)}, this run has {_short(new)}: {remedy}"
    return None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:16]}..."
