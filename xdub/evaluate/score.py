"""`xdub eval score`: a finished video against a reference of the same words, from the two files alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xdub.errors import UserError
from xdub.evaluate.metrics import leak_corr, lip_box, mean_psnr, opening_corr, psnr
from xdub.media import read_frames

Report = Callable[..., None]
"""`report(done, total, text="")`"""
MIN_FACES = 0.5
"""Least share of frames with a face in both videos."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Figures of one video. Openings are read twice: from MediaPipe's landmarks and by our network (rendered
    heads).
    """

    frames: int
    faces: float
    """Share of frames with a face in both videos."""
    psnr: float
    lip_psnr: float
    opening_corr: float
    """Landmarks' opening of video and reference over time."""
    opening_corr_readout: float
    """The same, read by the mouth network."""
    leak_corr: float | None = None
    """With the part of the source's opening that the reference does not explain; needs a source."""
    raw_leak_corr: float | None = None


def score(
    video: str | Path,
    reference: str | Path,
    *,
    source: str | Path | None = None,
    on_progress: Report | None = None,
) -> Score:
    """Compare ``video`` with ``reference`` (the same head really saying it), optionally with the ``source``
    it came from.

    All are read at 25 fps; a surplus frame or two at the end is ignored. UserError: a file that is no video,
    other sizes, lengths that differ by more than half a second, or too few faces.
    """
    from xdub.evaluate.opening import read_opening
    from xdub.perception.faces import FaceTracker
    from xdub.perception.mouth import mouth_opening

    paths = [Path(p) for p in (video, reference, source) if p is not None]
    tell = on_progress or (lambda *_: None)
    films = _read(paths)
    points = []
    for number, film in enumerate(films):
        tell(number, len(films), f"faces of {paths[number].name}")
        with FaceTracker() as tracker:
            points.append(tracker.track(film).landmarks68)
    tell(len(films), len(films), "faces")
    seen = np.isfinite(np.stack(points[:2])).all(axis=(0, 2, 3))
    if seen.mean() < MIN_FACES:
        raise UserError(
            f"{video}: a face in both videos in only {seen.mean():.0%} of the frames; need half of them"
        )
    made, truth = films[:2]
    openings = [mouth_opening(p) for p in points]
    # One track for both readings: the network looks where the head is, wherever the lips are.
    readings = [read_opening(film, points[1]) for film in (made, truth)]
    lips = lip_box(points[:2], *made.shape[1:3])
    leak = leak_corr(openings[:1], openings[2:], openings[1:2]) if source is not None else None
    return Score(
        frames=len(made),
        faces=float(seen.mean()),
        psnr=mean_psnr([psnr(made, truth)]),
        lip_psnr=mean_psnr([psnr(made, truth, lips)]),
        opening_corr=opening_corr(openings[:1], openings[1:2]).mean,
        opening_corr_readout=opening_corr(readings[:1], readings[1:]).mean,
        leak_corr=None if leak is None else leak.unique,
        raw_leak_corr=None if leak is None else leak.raw,
    )


def _read(paths: list[Path]) -> list[np.ndarray]:
    films = [read_frames(path) for path in paths]
    shapes = {film.shape[1:] for film in films}
    if len(shapes) > 1:
        sizes = ", ".join(f"{p.name} {f.shape[2]}x{f.shape[1]}" for p, f in zip(paths, films, strict=True))
        raise UserError(f"the videos differ in size ({sizes}); score videos of one size")
    lengths = [len(film) for film in films]
    if max(lengths) - min(lengths) > 12:
        told = ", ".join(f"{p.name} {n}" for p, n in zip(paths, lengths, strict=True))
        raise UserError(
            f"the videos differ in length ({told} frames at 25 fps); cut them to the same length first"
        )
    return [film[: min(lengths)] for film in films]
