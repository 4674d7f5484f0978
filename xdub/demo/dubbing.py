"""Held-out cases through the very path of `xdub dub`: mp4 and wav in, mp4 out, by generator and editor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xdub.demo.cases import case_folders
from xdub.demo.stages import Demo, Report
from xdub.evaluate.heldout import RawCrops
from xdub.files.atomic import atomic_path


def dubbed_file(demo: Demo, model: str, case: Path) -> Path:
    return demo.out / "dubbed" / model / f"{case.name}.mp4"


def silent_file(demo: Demo, model: str, case: Path) -> Path:
    return demo.out / "dubbed" / model / f"{case.name}.silence.mp4"


def raw_crops(demo: Demo, model: str, case: Path) -> RawCrops:
    """What the model made of a case before it was pasted back."""
    with np.load(_raw_file(demo, model, case)) as data:
        return RawCrops(made=data["made"], source=data["source"], face=data["face"])


def _raw_file(demo: Demo, model: str, case: Path) -> Path:
    return dubbed_file(demo, model, case).with_suffix(".npz")


def dub_cases(demo: Demo, model: str, report: Report) -> dict[str, Any]:
    """Dub what is missing: every case with its new speech, the first ones also with silence."""
    from xdub.dub import dub_video
    from xdub.model.bundle import load_bundle

    (demo.out / "dubbed" / model).mkdir(parents=True, exist_ok=True)
    folders = case_folders(demo.cases)
    total = len(folders) + demo.plan.silent
    bundle = load_bundle(demo.run / "bundle")
    options = {"model": bundle, "seed": demo.seed, "use": model}
    for number, case in enumerate(folders):
        report(number, total, "clips dubbed")
        # The raw crops are written first: with the video there, the case is done.
        if not dubbed_file(demo, model, case).is_file():
            _dub_one(demo, model, case, options)
    for number, case in enumerate(folders[: demo.plan.silent]):
        report(len(folders) + number, total, "clips dubbed, with silence")
        if not silent_file(demo, model, case).is_file():
            dub_video(case / "source.mp4", case / "silence.wav", silent_file(demo, model, case), **options)
    report(total, total, "clips dubbed")
    return {"files": total}


def _dub_one(demo: Demo, model: str, case: Path, options: dict[str, Any]) -> None:
    from xdub.dub import dub_video

    pieces: list[tuple[np.ndarray, ...]] = []
    whole = dubbed_file(demo, model, case)
    partial = whole.with_name(f".{case.name}.new.mp4")
    dub_video(
        case / "source.mp4",
        case / "speech.wav",
        partial,
        on_crops=lambda *piece: pieces.append(piece),
        **options,
    )
    made, source, face = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    with atomic_path(_raw_file(demo, model, case)) as temporary:
        np.savez(temporary, made=np.rint(made).clip(0, 255).astype(np.uint8), source=source, face=face)
    partial.replace(whole)
