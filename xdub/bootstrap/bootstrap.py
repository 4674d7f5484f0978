"""The stages of a bootstrap in order. Each stage continues from the results of an earlier attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdub.bootstrap.record import begin, weight_users
from xdub.config import (
    Recipe,
    check_phase,
    inpaints,
    load_recipe,
    phase_facts,
)
from xdub.errors import UserError
from xdub.files.run_folder import RunFolder
from xdub.headers import check_networks
from xdub.progress import Report, stage_progress

if TYPE_CHECKING:
    from xdub.data.manifest import Manifest
    from xdub.pool import Workers

CLIP_LATENTS, PAIR_LATENTS = "clip-latents", "pair-latents"
"""Names of the stages that encode clips and pairs for the phases that read cached latents."""
TITLES = {
    CLIP_LATENTS: "encode clips",
    "pairs": "generate pairs",
    PAIR_LATENTS: "encode pairs",
    "bundle": "write the model",
}
"""Titles of the stages that are no phases; a phase has a title of its own."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a bootstrap."""

    name: str
    """A phase, ``pairs``, `CLIP_LATENTS`, `PAIR_LATENTS` or ``bundle``."""
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
    manifest = _check_inputs(recipe, data, init)
    begin(recipe, manifest, RunFolder(out), init, stage_names(recipe)[0])
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

    def machines() -> Workers:
        """Return the workers of a stage in which the machines that train are idle."""
        from xdub.pool import Workers

        count, resource = pair_workers or recipe.train.workers, recipe.train.resource
        return Workers(least=count, most=count, resources={resource: 1} if resource else {})

    def encode(source: Path | str, inpainting: bool) -> Callable[[Report], None]:
        def encode_missing(report: Report) -> None:
            from xdub.encode import encode_latents
            from xdub.train.run import is_finished

            names = [
                name
                for name in cached_phases(recipe, inpainting)
                if not is_finished(run.phase(name), recipe.for_phase(name).steps)
            ]
            # The latents of a finished phase may have been deleted.
            if names:
                encode_latents(
                    recipe, source, phases=names, workers=machines(), local=local, on_progress=report
                )

        return encode_missing

    def generate_pairs(report: Report) -> None:
        from xdub.pairs.factory import build_pairs

        build_pairs(
            recipe,
            generator or run.phase("generator").export,
            data,
            run.pairs,
            workers=machines(),
            local=local,
            on_progress=report,
            tracked_in=run.path,
        ).require_pairs(run.pairs)

    def write_model(report: Report) -> None:
        from xdub.model.bundle import same_bundle, write_bundle

        if not same_bundle(run, recipe, run.bundle):
            write_bundle(run, recipe, run.bundle)

    actions = {name: phase(name) for name in recipe.phase_names} | {
        CLIP_LATENTS: encode(data, inpainting=True),
        "pairs": generate_pairs,
        PAIR_LATENTS: encode(run.pairs, inpainting=False),
        "bundle": write_model,
    }
    titles = TITLES | {name: phase_facts(name).title for name in recipe.phase_names}
    return [Stage(name=name, title=titles[name], run=actions[name]) for name in stage_names(recipe)]


def stage_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages in order: phases that inpaint, pairs, phases that edit, model folder.

    A stage that encodes precedes the phases of either kind if one of them reads cached latents.
    """
    inpainting = [name for name in recipe.phase_names if inpaints(name)]
    editing = [name for name in recipe.phase_names if not inpaints(name)]
    clips, pairs = (
        [stage] if cached_phases(recipe, inpaint) else []
        for stage, inpaint in ((CLIP_LATENTS, True), (PAIR_LATENTS, False))
    )
    return (*clips, *inpainting, "pairs", *pairs, *editing, "bundle")


def cached_phases(recipe: Recipe, inpainting: bool) -> list[str]:
    """Return the phases that read cached latents, of those that inpaint or of the others."""
    names = [name for name in recipe.phase_names if inpaints(name) == inpainting]
    return [name for name in names if recipe.for_phase(name).latents == "cached"]


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


def _check_inputs(recipe: Recipe, data: str | Path, init: str | Path | None) -> Manifest:
    """Return the data's manifest. Raise UserError for inputs that a later stage would refuse."""
    from xdub.data.manifest import read_manifest
    from xdub.data.sample_order import SampleOrder
    from xdub.model.bundle import bundle_path, bundle_weights

    for name in recipe.phase_names:
        check_phase(recipe, name)
    check_networks(recipe, weight_users(recipe))
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"--data {manifest.folder} holds {manifest.kind}; a bootstrap starts from clips (`xdub prepare`)"
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
