"""The stages of a bootstrap in order. Each one finds by itself what an earlier attempt left, so a kill costs little."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdub.bootstrap.model_folder import same_bundle, write_bundle
from xdub.config import Recipe, check_weights, inpaints, phase_facts
from xdub.errors import UserError
from xdub.files.atomic import write_json
from xdub.progress import Report, stage_progress

RECORD = "bootstrap.json"

TITLES = {"pairs": "let it make pairs", "bundle": "write the model"}
"""Of the stages that are no phases."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the journey."""

    name: str
    title: str
    run: Callable[[Report], None]
    """Does what is left to do; calls the report as it goes. At once, if all is done."""


def bootstrap(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    init: str | Path | None = None,
    local: bool = False,
    pair_workers: int | None = None,
    on_stage: Callable[[Stage, int, int], Report] | None = None,
) -> Path:
    """All stages; the model folder OUT/bundle. A killed run is continued by the same call.

    Args:
        data: folder of clip shards.
        init: model folder whose weights every phase starts from; none = the generator from random weights, the editor
            from the generator, the experts from nothing.
        local: everything in this process, without Ray (one worker).
        pair_workers: processes that make pairs; as many as train if not given.
        on_stage: called as (stage, number, total) before each; returns the function that receives its progress. None:
            show each stage on stderr.

    Raises UserError for data or settings that do not fit, and when OUT was begun with others.
    """
    _check_inputs(recipe, Path(data), init)
    stages = bootstrap_stages(recipe, data, out, init=init, local=local, pair_workers=pair_workers)
    with stage_progress() as show_stage:
        for number, stage in enumerate(stages, start=1):
            stage.run((on_stage or show_stage)(stage, number, len(stages)))
    return Path(out) / "bundle"


def bootstrap_stages(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    init: str | Path | None = None,
    local: bool = False,
    pair_workers: int | None = None,
) -> list[Stage]:
    """The stages of `bootstrap`, for a caller that runs them one by one."""
    out = Path(out)
    _begin(recipe, Path(data), out, init)

    def phase(name: str) -> Callable[[Report], None]:
        source = data if inpaints(name) else out / "pairs"
        return lambda report: _train(name, recipe, source, out, init, local, report)

    def make_pairs(report: Report) -> None:
        from xdub.pairs.build import build_pairs
        from xdub.pairs.workers import Workers

        count, resource = pair_workers or recipe.train.workers, recipe.train.resource
        build_pairs(
            recipe,
            out / "generator" / "export",
            data,
            out / "pairs",
            # On the machines that train, which have nothing else to do meanwhile.
            workers=Workers(least=count, most=count, resources={resource: 1} if resource else {}),
            local=local,
            on_progress=report,
            tracked_in=out,
        )

    def make_bundle(report: Report) -> None:
        if not same_bundle(out, out / "bundle", recipe.phase_names):
            write_bundle(out, recipe, out / "bundle")

    actions = {name: phase(name) for name in recipe.phase_names} | {
        "pairs": make_pairs,
        "bundle": make_bundle,
    }
    titles = TITLES | {name: phase_facts(name).title for name in recipe.phase_names}
    return [Stage(name=name, title=titles[name], run=actions[name]) for name in stage_names(recipe)]


def stage_names(recipe: Recipe) -> tuple[str, ...]:
    """Phases in order, with the pairs made when all that hide the mouth are trained, and the model folder last."""
    hiding = [name for name in recipe.phase_names if inpaints(name)]
    editing = [name for name in recipe.phase_names if not inpaints(name)]
    return (*hiding, "pairs", *editing, "bundle")


def _train(
    name: str,
    recipe: Recipe,
    data: Path | str,
    out: Path,
    init: str | Path | None,
    local: bool,
    report: Report,
) -> None:
    from xdub.model.bundle import bundle_path
    from xdub.train.run import train_phase
    from xdub.train.show.progress import PhaseProgress

    def show(now: PhaseProgress) -> None:
        now.send(report)

    if init is not None:
        init_from = bundle_path(init) / f"{name}.safetensors"
    else:
        # Generator and editor share all but the mask's input columns: what it learned of faces and speech carries over.
        facts = phase_facts(name)
        goes_on = facts.starts_from is not None and facts.expert is None  # an expert has its base, by itself
        init_from = out / str(facts.starts_from) / "export" if goes_on else None
    result = train_phase(
        name, recipe, data, out, resume=True, init_from=init_from, local=local, progress=show
    )
    if result.status != "finished":
        raise KeyboardInterrupt  # it was asked to stop and has left a checkpoint


def _check_inputs(recipe: Recipe, data: Path, init: str | Path | None) -> None:
    """What a stage would find out only when its turn comes, and before OUT remembers a mistaken choice."""
    from xdub.data.manifest import read_manifest
    from xdub.data.sample_order import Plan
    from xdub.model.bundle import bundle_path

    check_weights(recipe, (*recipe.phase_names, "pairs"))
    manifest = read_manifest(data)
    if manifest.kind != "clips":
        raise UserError(
            f"--data {data} holds {manifest.kind}; a bootstrap begins with clips (`xdub prepare`)"
        )
    Plan([manifest], window=max(recipe.phase(name).window for name in recipe.phase_names), seed=recipe.seed)
    for name in recipe.phase_names if init is not None else ():
        weights = bundle_path(init) / f"{name}.safetensors"
        if not weights.is_file():
            raise UserError(f"--init {init}: has no {weights.name}; give tiny or a model folder (RUN/bundle)")


def _begin(recipe: Recipe, data: Path, out: Path, init: str | Path | None) -> None:
    """A folder continues only what was begun in it: mixed stages would look right and mean nothing."""
    told: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "data": str(data.resolve()),
        "init": None if init is None else str(init),
    }
    record = out / RECORD
    if not record.is_file():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--out {out}: cannot be made ({error.strerror}); choose another folder"
            ) from error
        write_json(record, told)
        return
    try:
        began = json.loads(record.read_text("utf-8"))
        changed = [key for key in told if began[key] != told[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} is damaged; remove {out} and start again") from error
    if changed:
        what = ", ".join(f"another {key}" for key in changed)
        raise UserError(
            f"--out {out} was begun with {what}; continue with the same, or choose another folder"
        )
