"""Dub the held-out cases the way `xdub dub` does, mp4 and wav in, mp4 out, with generator and editor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xdub.demo.cases import case_folders
from xdub.demo.layout import Demo, Model
from xdub.evaluate.heldout import RawCrops
from xdub.files.atomic import atomic_path
from xdub.files.run_folder import RunFolder
from xdub.model.bundle import Bundle
from xdub.progress import Report


def raw_crops(demo: Demo, model: Model, case: Path) -> RawCrops:
    """Load the crops that the model generated for a case, before they were pasted back."""
    with np.load(demo.raw(model, case)) as data:
        return RawCrops(video=data["made"], source=data["source"], face=data["face"])


def dub_cases(demo: Demo, model: Model, report: Report) -> dict[str, Any]:
    """Dub the missing cases: all with their new speech, the first ones also with silence."""
    from xdub.dub.dub import dub_video
    from xdub.model.bundle import load_bundle

    (demo.out / "dubbed" / model).mkdir(parents=True, exist_ok=True)
    folders = case_folders(demo.cases)
    total = len(folders) + demo.plan.silent
    bundle = load_bundle(RunFolder(demo.run).bundle)
    for number, case in enumerate(folders):
        report(number, total, "clips dubbed")
        # The raw crops are written first, so a case is finished once its video exists.
        if not demo.dubbed(model, case).is_file():
            _dub_case(demo, model, case, bundle)
    for number, case in enumerate(folders[: demo.plan.silent]):
        report(len(folders) + number, total, "clips dubbed, with silence")
        if not demo.silent(model, case).is_file():
            source, speech, out = case / "source.mp4", case / "silence.wav", demo.silent(model, case)
            dub_video(source, speech, out, model=bundle, seed=demo.seed, use=model)
    report(total, total, "clips dubbed")
    return {"files": total}


def _dub_case(demo: Demo, model: Model, case: Path, bundle: Bundle) -> None:
    from xdub.dub.dub import dub_video

    pieces: list[tuple[np.ndarray, ...]] = []
    whole = demo.dubbed(model, case)
    partial = whole.with_name(f".{case.name}.new.mp4")
    dub_video(
        case / "source.mp4",
        case / "speech.wav",
        partial,
        model=bundle,
        seed=demo.seed,
        use=model,
        on_crops=lambda *piece: pieces.append(piece),
    )
    generated, source, face = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    with atomic_path(demo.raw(model, case)) as temporary:
        np.savez(temporary, made=np.rint(generated).clip(0, 255).astype(np.uint8), source=source, face=face)
    partial.replace(whole)
