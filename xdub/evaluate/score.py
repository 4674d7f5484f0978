"""Score a finished video against a reference of the same words, from the files alone (`xdub eval score`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xdub.errors import UserError
from xdub.evaluate.metric import combine, measure
from xdub.evaluate.metrics import SCORED, lip_box
from xdub.media import read_frames
from xdub.progress import Report, ignore

MIN_FACES = 0.5
"""Least share of frames with a face in both videos."""
MAX_SURPLUS = 12
"""Frames by which the videos may differ in length."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Figures of one video. Openings come from MediaPipe's landmarks, those named readout from the mouth network."""

    frames: int
    """Number of frames that were compared."""
    faces: float
    """Share of frames with a face in both videos."""
    figures: Mapping[str, float | None]
    """Metric's name -> value; None where its inputs are missing, such as the source."""

    def to_dict(self) -> dict[str, float | None]:
        """Return all fields in one flat mapping, as `xdub eval score` prints them."""
        return {"frames": self.frames, "faces": self.faces, **self.figures}


def score(
    video: str | Path,
    reference: str | Path,
    *,
    source: str | Path | None = None,
    on_progress: Report | None = None,
) -> Score:
    """Compare ``video`` with ``reference`` (the same head really saying the words).

    With the ``source`` of the dubbing, the leak of its speech is measured as well. All files are read at 25 fps; a
    surplus of up to half a second at the end is ignored.

    Raises:
        UserError: a file is no video, the videos differ in size or by more than half a second in length, or too few
            frames have a face.
    """
    from xdub.evaluate.opening import read_opening
    from xdub.perception.faces import FaceTracker
    from xdub.perception.mouth import mouth_opening

    report = on_progress or ignore
    paths = {"video": Path(video), "reference": Path(reference)}
    if source is not None:
        paths["source"] = Path(source)
    films = dict(zip(paths, _read(list(paths.values())), strict=True))
    tracks = {}
    for number, (role, film) in enumerate(films.items()):
        report(number, len(films), f"faces of {paths[role].name}")
        with FaceTracker() as tracker:
            tracks[role] = tracker.track(film).landmarks68
    report(len(films), len(films), "faces")
    both = [tracks["video"], tracks["reference"]]
    has_faces = np.isfinite(np.stack(both)).all(axis=(0, 2, 3))
    if has_faces.mean() < MIN_FACES:
        raise UserError(
            f"{video}: both videos show a face in only {has_faces.mean():.0%} of the frames; half are needed"
        )
    # One track serves both readings, because the network locates the mouth by eyes and nose.
    head = tracks["reference"]
    openings = {"video": "opening", "reference": "new_opening", "source": "old_opening"}
    inputs = films | {openings[role]: mouth_opening(track) for role, track in tracks.items()}
    inputs |= {
        "landmarks": head,
        "lips": lip_box(both, *films["video"].shape[1:3]),
        "reading": read_opening(films["video"], head),
        "reference_reading": read_opening(films["reference"], head),
    }
    figures = combine(SCORED, [measure(SCORED, inputs)])
    return Score(
        frames=len(films["video"]),
        faces=float(has_faces.mean()),
        figures={
            metric.name: figures[metric.name].value if metric.name in figures else None for metric in SCORED
        },
    )


def _read(paths: list[Path]) -> list[np.ndarray]:
    """Read the frames of all videos, cut to the shortest."""
    films = [read_frames(path) for path in paths]
    shapes = {film.shape[1:] for film in films}
    if len(shapes) > 1:
        sizes = ", ".join(f"{p.name} {f.shape[2]}x{f.shape[1]}" for p, f in zip(paths, films, strict=True))
        raise UserError(f"the videos differ in size ({sizes}); score videos of one size")
    lengths = [len(film) for film in films]
    if max(lengths) - min(lengths) > MAX_SURPLUS:
        counts = ", ".join(f"{p.name} {n}" for p, n in zip(paths, lengths, strict=True))
        raise UserError(
            f"the videos differ in length ({counts} frames at 25 fps); cut them to the same length first"
        )
    return [film[: min(lengths)] for film in films]
