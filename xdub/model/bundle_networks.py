"""The networks of a model folder that are not in it, known by content: with others of equal sizes a dub shows noise."""

from __future__ import annotations

import json
import re
from pathlib import Path

from xdub.config import DUB, Recipe, network_digests
from xdub.errors import UserError
from xdub.files.atomic import write_json

NETWORKS = "networks.json"
"""File of a model folder with the digests; folders without such networks, or of earlier versions, have none."""
ROLES = ("codec", "audio", "prompt", "base")
"""Networks of a dub that are not in the folder."""
SHA256 = re.compile(r"[0-9a-f]{64}")
"""Form of a digest; a network of the hub or the registry has its name instead, which is not compared."""


def record_networks(recipe: Recipe, folder: Path) -> None:
    """Write the digests of the networks of a recipe that are loaded from a path, if there are any."""
    digests = network_digests(recipe, (DUB,), roles=ROLES)
    if digests:
        write_json(folder / NETWORKS, digests)


def check_recorded_networks(recipe: Recipe, folder: Path) -> None:
    """Raise UserError if a recipe would dub with networks other than those that the model was trained with."""
    path = folder / NETWORKS
    if not path.is_file():
        return
    try:
        recorded = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged; copy the model folder again") from error
    for role, digest in network_digests(recipe, (DUB,), roles=ROLES).items():
        before = str(recorded.get(role, digest))
        if before != digest and SHA256.fullmatch(before) and SHA256.fullmatch(digest):
            raise UserError(
                f"{folder}: the model was trained with another {role} network (sha256 {before[:12]}...) than its "
                f"recipe names now ({digest[:12]}...); name the folder of the former with --set weights=DIR, or "
                f"delete {path} to use the latter"
            )
