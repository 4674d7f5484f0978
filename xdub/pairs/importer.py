"""Import of a user's own 3D pairs (Unreal Engine or any renderer), filtered like generated pairs (paper B.3).

Both videos are cropped by V's boxes, so they stay aligned; sanity and alignment checks verify it. Every scene, clip and
unused frame ends in the ledger, and a repeated call adds nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xdub.config import Recipe, network_digests, without_paths
from xdub.data.clip import Clip, clip_id_of
from xdub.data.clip_checks import Rejected
from xdub.data.clip_masks import mask_settings
from xdub.data.ingest import Ingested, ingest
from xdub.data.ledger import LedgerRow, last_change_ns
from xdub.data.manifest import MANIFEST, read_manifest
from xdub.data.prepare import Preparer
from xdub.data.spans import frames_id, shortest_clip, unused_rows
from xdub.errors import UserError
from xdub.files.storage import Location, locate
from xdub.geometry import FPS, SAMPLE_RATE
from xdub.pairs.filter_plots import update_filter_plots
from xdub.pairs.filters import judge
from xdub.pairs.judges import Judges, load_judges
from xdub.pairs.scenes import check_sound, find_scenes, open_scene, scene_files
from xdub.pool import Workers
from xdub.precision import open_device
from xdub.progress import Report


def import_pairs(
    sources: Sequence[str | Path],
    out: str | Path | Location,
    recipe: Recipe,
    *,
    workers: int | Workers | None = None,
    on_progress: Report | None = None,
    judges: Judges | None = None,
) -> Ingested:
    """Add all scenes below the folders SRC (see `scenes`) to the pair folder OUT, new or written by `xdub pairs`.

    A scene with missing or mismatched files is "failed" in the ledger, and the next call tries it again. A pair that
    fails a check is "rejected". The call also draws OUT/filters.png.

    Raises:
        UserError: there is no scene, OUT holds pairs of other crops or thresholds, or OUT holds no pair in the end.
    """
    scenes = find_scenes(sources)
    out = locate(out)
    settings = import_settings(out, recipe)
    try:
        return ingest(
            scenes,
            out,
            partial(SceneImporter, recipe, judges),
            verb="import-pairs",
            kind="pairs",
            files_of=scene_files,
            manifest_recipe=settings,
            workers=workers,
            gpus=None if recipe.masks.networks else 0,
            on_progress=on_progress,
        )
    finally:
        # The picture is most useful when no pair was kept.
        if last_change_ns(out):
            update_filter_plots(out, recipe)


class SceneImporter:
    """Preparer of V and judges in memory; one object serves many scenes."""

    def __init__(self, recipe: Recipe, judges: Judges | None = None) -> None:
        """Load the networks; ``judges`` replace those of `recipe.perception`."""
        self.recipe = recipe
        self._preparer = Preparer(recipe, screened=False)
        self._judges = judges or load_judges(recipe.perception, open_device())

    def __call__(self, source: str) -> Iterator[Clip | LedgerRow]:
        """Yield the kept pairs of one scene and its ledger rows."""
        try:
            yield from self._pairs(source)
        except Rejected as rejection:
            yield rejection.row(source)
            yield from self._preparer.losses(source)
        except UserError as error:
            # The user can fix the files, so the scene is "failed" and the next call tries it again.
            yield LedgerRow(input=source, status="failed", check="files", message=str(error))

    def _pairs(self, source: str) -> Iterator[Clip | LedgerRow]:
        preparer = self._preparer
        scene = open_scene(Path(source))
        spans, has_face, audio = preparer.find_clips(scene.original, sound=scene.audio)
        check_sound(scene, len(has_face) / FPS, len(audio) / SAMPLE_RATE)
        used = np.zeros(len(has_face), bool)
        both = (preparer.cut_crops(path, spans) for path in (scene.original, scene.dubbed))
        for (start, span, crops), (_, _, reference) in zip(*both, strict=True):
            used[start : start + len(crops)] = True
            try:
                clip = preparer.clip_of(scene.original, crops, start, span, audio)
                clip = preparer.with_masks(clip, start=start, span=span)
            except Rejected as rejection:
                yield rejection.row(source, frames_id(start, start + len(crops)))
                continue
            pair, row = judge_pair(source, clip, reference, self.recipe, self._judges)
            yield row
            if pair is not None:
                yield pair
        yield from unused_rows(source, used, has_face, shortest_clip(self.recipe))
        yield from preparer.losses(source)


def judge_pair(
    key: str, clip: Clip, reference: np.ndarray, recipe: Recipe, judges: Judges
) -> tuple[Clip | None, LedgerRow]:
    """Judge V and V' uint8 [F,S,S,3], cropped by V's boxes; return the pair (None if a check fails) and its row."""
    verdict, scores = judge(
        clip,
        reference,
        embed=judges.embed,
        read_mouth=judges.read_mouth,
        identity_threshold=recipe.identity_threshold,
        mouth_threshold=recipe.pairs.mouth_threshold,
    )
    pair_id = clip_id_of("import", clip.frames, clip.audio, reference)
    row = verdict.ledger_row(key, pair_id, scores, f"imported from {clip.source}")
    if not verdict.kept:
        return None, row
    source = f"pair:import:{clip.source}"
    return replace(
        clip, clip_id=pair_id, source=source, reference=reference, references=None, scores=scores
    ), row


def import_settings(out: Location, recipe: Recipe) -> dict[str, Any] | None:
    """Return the settings for the manifest, None if OUT has them already. Raise UserError if OUT has others."""
    raw = without_paths(recipe.identity())
    thresholds = {name: raw["pairs"][name] for name in ("identity_threshold", "mouth_threshold")}
    settings: dict[str, Any] = {
        "import": 1,
        "video": raw["video"],
        "pairs": thresholds,
        "perception": raw["perception"],
    }
    # The embedder is known by content, so its file may move.
    networks = network_digests(recipe, ("pairs",), roles=("identity",))
    settings |= ({"networks": networks} if networks else {}) | mask_settings(recipe)
    if not (out / MANIFEST).is_file():
        return settings
    manifest = read_manifest(out)
    if manifest.kind != "pairs":
        # The shard writer raises the error.
        return settings
    previous = manifest.recipe or {}
    differ = [f"video.{k}" for k, v in settings["video"].items() if previous.get("video", {}).get(k) != v]
    differ += [f"pairs.{k}" for k, v in thresholds.items() if previous.get("pairs", {}).get(k) != v]
    # Earlier versions recorded the location of the embedder instead of its content.
    located = "networks" not in previous and previous.get("perception") == recipe.identity()["perception"]
    embedders = [values.get("networks", {}).get("identity") for values in (previous, settings)]
    if not located and (previous.get("perception") != settings["perception"] or embedders[0] != embedders[1]):
        differ.append("perception")
    # The pairs of `xdub pairs` have the masks of their data set, which its settings do not name.
    if "import" in previous and previous.get("masks") != settings.get("masks"):
        differ.append("masks")
    if differ:
        raise UserError(f"{out}: holds pairs created with another {', '.join(differ)}; choose another folder")
    return None if manifest.ids else settings
