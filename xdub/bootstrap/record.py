"""OUT/bootstrap.json: recipe, data and start of a bootstrap, which a call that continues must share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdub.config import SHIPPED_MODEL, Recipe, network_digests, recipe_from_dict, without_paths
from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.run_folder import PhaseFolder, RunFolder

if TYPE_CHECKING:
    from xdub.data.manifest import Manifest


def begin(
    recipe: Recipe, manifest: Manifest, run: RunFolder, init: str | Path | None, first_stage: str
) -> None:
    """Record recipe, data and start in OUT, or raise UserError if OUT was started with other ones.

    Stages of different recipes or data would fit together and yield a meaningless model. Data and weights are known by
    their content, so all folders may move.
    """
    record, out = run.bootstrap, run.path
    if not record.is_file():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--out {out}: cannot be created ({error.strerror}); choose another folder"
            ) from error
        shards = len(manifest.shards)
        data = {"shards": shards, "digest": manifest.beginning(shards)}
        facts = {"recipe": recipe.to_dict(), "networks": network_digests(recipe, weight_users(recipe))}
        write_json(record, facts | {"data": data, "init": _weights(init, recipe)})
        return
    try:
        recorded = json.loads(record.read_text("utf-8"))
        same = {
            "recipe": _same_recipe(recorded, recipe),
            **_same_networks(recorded, recipe),
            "data": _same_data(recorded["data"], manifest, run.phase(first_stage)),
            "init": _same_init(recorded["init"], init, recipe),
        }
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} is damaged; remove {out} and start again") from error
    if not all(same.values()):
        others = ", ".join(f"another {key}" for key, equal in same.items() if not equal)
        raise UserError(
            f"--out {out} was started with {others}; continue with the same, or choose another folder"
        )


def weight_users(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages that load frozen networks."""
    return (*recipe.phase_names, "pairs")


def _same_recipe(recorded: dict[str, Any], recipe: Recipe) -> bool:
    """Return whether a record has the recipe, apart from settings that a run may change when it continues.

    Records of earlier versions know networks by their paths only.
    """
    raw, current = recorded["recipe"], recipe.lasting()
    try:
        before = recipe_from_dict(raw).lasting()
    except UserError:
        return False
    if "networks" not in recorded:
        return before == current
    return without_paths(before) == without_paths(current)


def _same_networks(recorded: dict[str, Any], recipe: Recipe) -> dict[str, bool]:
    """Return for each frozen network whether its content is the recorded one, wherever its file is now."""
    if "networks" not in recorded:
        return {}
    current = network_digests(recipe, weight_users(recipe))
    return {
        f"{role} network": digest == current.get(role, digest)
        for role, digest in recorded["networks"].items()
    }


def _same_data(recorded: dict[str, Any] | str, manifest: Manifest, first: PhaseFolder) -> bool:
    """Return whether a set begins with the recorded shards; `xdub prepare` may have added others since.

    Records of earlier versions have the path of the data; after a move, the first stage's summary of its data decides.
    """
    if not isinstance(recorded, str):
        return manifest.beginning(recorded["shards"]) == recorded["digest"]
    if recorded == manifest.folder.full:
        return True
    if not first.data_summary.is_file():
        return False
    (data,) = json.loads(first.data_summary.read_text("utf-8"))
    hashes = [shard["sha256"] for shard in data["shards"]]
    return hashes == [shard.sha256 for shard in manifest.shards[: len(hashes)]]


def _same_init(recorded: dict[str, str] | str | None, init: str | Path | None, recipe: Recipe) -> bool:
    """Return whether ``init`` holds the recorded weights; records of earlier versions have the folder's path."""
    if isinstance(recorded, str) and init is not None and SHIPPED_MODEL not in (recorded, str(init)):
        return Path(recorded).resolve() == Path(init).resolve()
    return recorded == _weights(init, recipe)


def _weights(init: str | Path | None, recipe: Recipe) -> dict[str, str] | str | None:
    """Return the sha256 of each phase's weights in a model folder; None and the shipped model stay as they are."""
    from xdub.files.content import file_sha256
    from xdub.model.bundle import bundle_path, bundle_weights

    if init is None or str(init) == SHIPPED_MODEL:
        return None if init is None else str(init)
    return {name: file_sha256(bundle_weights(bundle_path(init), name)) for name in recipe.phase_names}
