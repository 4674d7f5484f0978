"""The stages of a bootstrap in order. Each stage continues from the results of an earlier attempt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdub.config import (
    SHIPPED_MODEL,
    Recipe,
    check_phase,
    inpaints,
    load_recipe,
    network_digests,
    phase_facts,
    recipe_from_dict,
    without_paths,
)
from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.headers import check_networks
from xdub.progress import Report, stage_progress

if TYPE_CHECKING:
    from xdub.data.manifest import Manifest

TITLES = {"pairs": "generate pairs", "bundle": "write the model"}
"""Titles of the stages that are no phases; a phase has a title of its own."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a bootstrap."""

    name: str
    """A phase, ``pairs`` or ``bundle``."""
    title: str
    """Text for a progress display."""
    run: Callable[[Report], None]
    """Do the remaining work and report progress; return at once if none remains."""


def bootstrap(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    init: str | Path | None = None,
    generator: str | Path | None = None,
    local: bool = False,
    pair_workers: int | None = None,
    on_stage: Callable[[Stage, int, int], Report] | None = None,
) -> Path:
    """Run all stages and return the model folder OUT/bundle. The same call continues a killed run.

    Args:
        data: folder of clip shards.
        init: model folder whose weights every phase starts from. None: the generator starts from random weights, the
            editor from the generator, and the experts from new adapters. A recipe with open weights starts from these.
        generator: editor NAME:DIR that makes the pairs of a recipe without a generator (`xdub.model.editor_start`).
        local: run everything in this process, without Ray, with one worker.
        pair_workers: processes that generate pairs; default: as many as train.
        on_stage: called with (stage, number, total) before each stage; returns the function that receives the
            stage's progress. None: show each stage on stderr.

    Raises UserError for data or settings that do not fit, and for an OUT that was started with other ones.
    """
    from xdub.model.editor_sampling import check_sampling
    from xdub.model.editor_start import start_from_editor
    from xdub.model.published import published_folder

    trained = any(map(inpaints, recipe.phase_names))
    if trained != (generator is None):
        raise UserError(
            f"--generator {generator}: recipe {recipe.name} trains its own generator; omit the option"
            if trained
            else f"recipe {recipe.name} trains no generator; name the model that makes its pairs, e.g. --generator "
            "xdub-public:DIR"
        )
    recipe = start_from_editor(recipe, generator)
    if generator is not None and (published := published_folder(generator)) is not None:
        check_sampling(recipe, load_recipe(published.editor.name))
    manifest = _check_inputs(recipe, Path(data), init)
    _begin(recipe, manifest, RunFolder(out), init)
    stages = bootstrap_stages(
        recipe, data, out, init=init, generator=generator, local=local, pair_workers=pair_workers
    )
    with stage_progress() as show_stage:
        for number, stage in enumerate(stages, start=1):
            stage.run((on_stage or show_stage)(stage, number, len(stages)))
    return RunFolder(out).bundle


def bootstrap_stages(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    init: str | Path | None = None,
    generator: str | Path | None = None,
    local: bool = False,
    pair_workers: int | None = None,
) -> list[Stage]:
    """Return the stages of `bootstrap`, for a caller that runs them one by one and checks its inputs itself."""
    from xdub.model.editor_start import start_from_editor

    run, recipe = RunFolder(out), start_from_editor(recipe, generator)

    def phase(name: str) -> Callable[[Report], None]:
        source = data if inpaints(name) else run.pairs
        return lambda report: _train(name, recipe, source, run, init, local, report)

    def generate_pairs(report: Report) -> None:
        from xdub.pairs.factory import build_pairs
        from xdub.pairs.workers import Workers

        count, resource = pair_workers or recipe.train.workers, recipe.train.resource
        build_pairs(
            recipe,
            generator or run.phase("generator").export,
            data,
            run.pairs,
            # The machines that train are idle during this stage.
            workers=Workers(least=count, most=count, resources={resource: 1} if resource else {}),
            local=local,
            on_progress=report,
            tracked_in=run.path,
        ).require_pairs(run.pairs)

    def write_model(report: Report) -> None:
        from xdub.model.bundle import same_bundle, write_bundle

        if not same_bundle(run, run.bundle, recipe.phase_names):
            write_bundle(run, recipe, run.bundle)

    actions = {name: phase(name) for name in recipe.phase_names} | {
        "pairs": generate_pairs,
        "bundle": write_model,
    }
    titles = TITLES | {name: phase_facts(name).title for name in recipe.phase_names}
    return [Stage(name=name, title=titles[name], run=actions[name]) for name in stage_names(recipe)]


def stage_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages in order: phases that inpaint, pairs, phases that edit, model folder."""
    inpainting = [name for name in recipe.phase_names if inpaints(name)]
    editing = [name for name in recipe.phase_names if not inpaints(name)]
    return (*inpainting, "pairs", *editing, "bundle")


def _train(
    name: str,
    recipe: Recipe,
    data: Path | str,
    run: RunFolder,
    init: str | Path | None,
    local: bool,
    report: Report,
) -> None:
    from xdub.model.bundle import bundle_path, bundle_weights
    from xdub.train.run import train_phase
    from xdub.train.show.step_progress import PhaseProgress

    def show(state: PhaseProgress) -> None:
        state.send(report)

    if init is not None:
        init_from = bundle_weights(bundle_path(init), name)
    else:
        # Generator and editor share all weights but the mask's input columns. An expert starts from its base by itself.
        facts = phase_facts(name)
        continues = facts.starts_from in recipe.phase_names and facts.expert is None
        init_from = run.phase(str(facts.starts_from)).export if continues else None
    result = train_phase(
        name, recipe, data, run.path, resume=True, init_from=init_from, local=local, progress=show
    )
    if result.status != "finished":
        raise KeyboardInterrupt  # a request to stop ended the phase with a checkpoint


def _check_inputs(recipe: Recipe, data: Path, init: str | Path | None) -> Manifest:
    """Return the data's manifest. Raise UserError for inputs that a later stage would refuse."""
    from xdub.data.manifest import read_manifest
    from xdub.data.sample_order import SampleOrder
    from xdub.model.bundle import bundle_path, bundle_weights

    for name in recipe.phase_names:
        check_phase(recipe, name)
    check_networks(recipe, _weight_users(recipe))
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"--data {data} holds {manifest.kind}; a bootstrap starts from clips (`xdub prepare`)"
        )
    SampleOrder(
        [manifest], window=max(recipe.phase(name).window for name in recipe.phase_names), seed=recipe.seed
    )
    if init is None:
        return manifest
    for name in recipe.phase_names:
        weights = bundle_weights(bundle_path(init), name)
        if not weights.is_file():
            raise UserError(f"--init {init}: has no {weights.name}; use tiny or a model folder (RUN/bundle)")
    return manifest


def _begin(recipe: Recipe, manifest: Manifest, run: RunFolder, init: str | Path | None) -> None:
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
        facts = {"recipe": recipe.to_dict(), "networks": network_digests(recipe, _weight_users(recipe))}
        write_json(record, facts | {"data": data, "init": _weights(init, recipe)})
        return
    try:
        recorded = json.loads(record.read_text("utf-8"))
        same = {
            "recipe": _same_recipe(recorded, recipe),
            **_same_networks(recorded, recipe),
            "data": _same_data(recorded["data"], manifest, run.phase(stage_names(recipe)[0])),
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


def _weight_users(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages that load frozen networks."""
    return (*recipe.phase_names, "pairs")


def _same_recipe(recorded: dict[str, Any], recipe: Recipe) -> bool:
    """Return whether a record has the recipe. Records of earlier versions know networks by their paths only."""
    raw, current = recorded["recipe"], recipe.to_dict()
    try:
        before = recipe_from_dict(raw).to_dict()
    except UserError:
        return False
    if "networks" not in recorded:
        return before == current
    return without_paths(before) == without_paths(current)


def _same_networks(recorded: dict[str, Any], recipe: Recipe) -> dict[str, bool]:
    """Return for each frozen network whether its content is the recorded one, wherever its file is now."""
    if "networks" not in recorded:
        return {}
    current = network_digests(recipe, _weight_users(recipe))
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
    if recorded == str(manifest.folder.resolve()):
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
