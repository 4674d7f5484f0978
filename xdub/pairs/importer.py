"""A user's own 3D pairs (Unreal Engine or any renderer) to pair shards, judged as generated ones are (paper B.3).

Both videos are cut by V's boxes, so what is aligned on screen stays aligned; whether it is, sanity and alignment
checks say. Every scene, clip and left-over frame ends in the ledger; running again adds nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from xdub.config import PerceptionConfig, Recipe
from xdub.data.clip import SAMPLE_RATE, Clip, clip_id_of
from xdub.data.ingest import Ingested, ingest
from xdub.data.ledger import LEDGER, LedgerRow
from xdub.data.manifest import MANIFEST, read_manifest
from xdub.data.prepare import Rejected, clip_of, cut_crops, look, shortest_clip, unused_rows
from xdub.errors import UserError
from xdub.media import probe
from xdub.pairs.filter_plots import draw_what_is_new
from xdub.pairs.filters import judge
from xdub.pairs.judged import judged_row
from xdub.pairs.judges import Judges, load_judges
from xdub.pairs.scenes import check_sound, find_scenes, open_scene
from xdub.progress import Report


def import_pairs(
    sources: Sequence[str | Path],
    out: str | Path,
    recipe: Recipe,
    *,
    workers: int | None = None,
    on_progress: Report | None = None,
    judges: Judges | None = None,
) -> Ingested:
    """All scenes below the folders SRC (see `scenes`) to the pair folder OUT, new or made by `xdub pairs`.

    A scene whose files do not fit is "failed" in the ledger, and tried again by the next call; a pair that a check
    turns down is "rejected". Draws OUT/filters.png.

    Raises:
        UserError: no scene is there, OUT holds pairs cut or judged otherwise, or OUT is empty and not one pair was fit.
    """
    scenes = find_scenes(sources)
    import_one = partial(import_scene, judges=judges)
    made_by = _made_by(Path(out), recipe)
    try:
        return ingest(
            scenes,
            out,
            recipe,
            import_one,
            kind="pairs",
            manifest_recipe=made_by,
            workers=workers,
            on_progress=on_progress,
        )
    finally:
        if (Path(out) / LEDGER).is_file():  # also where not one pair was fit: the picture says why
            draw_what_is_new(out, recipe)


def import_scene(
    source: str, recipe: Recipe, judges: Judges | None = None
) -> tuple[Iterable[Clip], Iterable[LedgerRow]]:
    """The kept pairs of one scene, made lazily, and its ledger rows, complete once the pairs have been taken."""
    rows: list[LedgerRow] = []
    return _pairs(Path(source), recipe, judges or _judges(recipe.perception), rows), rows


def _pairs(folder: Path, recipe: Recipe, judges: Judges, rows: list[LedgerRow]) -> Iterator[Clip]:
    try:
        scene = open_scene(folder)
        spans, known, audio = look(scene.original, recipe, sound=scene.audio)
        check_sound(scene, probe(scene.original), len(audio) / SAMPLE_RATE)
        used = np.zeros(len(known), bool)
        both = (cut_crops(path, recipe, spans) for path in (scene.original, scene.dubbed))
        for (start, span, crops), (_, _, reference) in zip(*both, strict=True):
            used[start : start + len(crops)] = True
            clip = clip_of(scene.original, crops, start, span, audio)
            pair, row = judge_pair(str(folder), clip, reference, recipe, judges)
            rows.append(row)
            if pair is not None:
                yield pair
        rows += unused_rows(str(folder), used, known, shortest_clip(recipe))
    except Rejected as no:
        rows.append(no.row(str(folder)))
    except UserError as error:  # to be mended: "failed", so that the next run tries it again
        rows.append(LedgerRow(input=str(folder), status="failed", check="files", message=str(error)))


def judge_pair(
    key: str, clip: Clip, reference: np.ndarray, recipe: Recipe, judges: Judges
) -> tuple[Clip | None, LedgerRow]:
    """(pair, its ledger row) for V and V' uint8 [F,S,S,3], cut by V's boxes; no pair where a check fails."""
    verdict, scores = judge(
        clip,
        reference,
        embed=judges.embed,
        read_mouth=judges.read_mouth,
        identity_threshold=recipe.pairs.identity_threshold,
        mouth_threshold=recipe.pairs.mouth_threshold,
    )
    pair_id = clip_id_of("import", clip.frames, clip.audio, reference)
    row = judged_row(key, pair_id, verdict, scores, f"imported from {clip.source}")
    if not verdict.kept:
        return None, row
    source = f"pair:import:{clip.source}"
    return replace(clip, clip_id=pair_id, source=source, reference=reference, scores=scores), row


@lru_cache(maxsize=1)
def _judges(perception: PerceptionConfig) -> Judges:
    """Loaded once a process, for all of its scenes."""
    return load_judges(perception)


def _made_by(out: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What the manifest is to note; None where OUT is begun already. UserError if it was begun otherwise."""
    raw = recipe.to_dict()
    thresholds = {name: raw["pairs"][name] for name in ("identity_threshold", "mouth_threshold")}
    ours = {"import": 1, "video": raw["video"], "pairs": thresholds, "perception": raw["perception"]}
    if not (out / MANIFEST).exists():
        return ours
    begun = read_manifest(out)
    if begun.kind != "pairs":
        return ours  # the writer says what is wrong
    known = begun.recipe or {}
    differ = [f"video.{k}" for k, v in ours["video"].items() if known.get("video", {}).get(k) != v]
    differ += [f"pairs.{k}" for k, v in thresholds.items() if known.get("pairs", {}).get(k) != v]
    differ += ["perception"] if known.get("perception") != ours["perception"] else []
    if differ:
        raise UserError(f"{out}: holds pairs made with another {', '.join(differ)}; choose another folder")
    return None if begun.ids else ours
