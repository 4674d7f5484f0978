"""`xdub eval score` on videos of drawn faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xdub.errors import UserError
from xdub.evaluate.metrics import SCORED
from xdub.evaluate.score import score
from xdub.evaluate.testing import drawn_faces, drawn_landmarks, opening_curve
from xdub.media import write_video


class DrawnFaces:
    """Tracker of drawn faces: it finds the mouth by its colour, so that the landmarks open and close with it."""

    def __enter__(self) -> DrawnFaces:
        return self

    def __exit__(self, *_: object) -> None: ...

    def track(self, frames: np.ndarray) -> DrawnFaces:
        points = drawn_landmarks(len(frames), frames.shape[1])
        red = (frames[..., 0].astype(int) > 110) & (frames[..., 1] < 90)
        gap = red.sum(axis=1).max(axis=1)
        points[:, 36:42, 0], points[:, 42:48, 0] = 40, 80
        points[:, 61:64, 1], points[:, 65:68, 1] = 80, (80 + gap)[:, None]
        points[:, 61:64, 0] = points[:, 65:68, 0] = 60
        self.landmarks68 = points if gap.any() else np.full_like(points, np.nan)
        return self


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    from xdub.evaluate import opening
    from xdub.perception import faces

    monkeypatch.setattr(faces, "FaceTracker", DrawnFaces)
    monkeypatch.setattr(
        opening, "read_opening", lambda frames, points: frames[:, 80:100, 50:80, 1].mean(axis=(1, 2))
    )
    curves = {"old": opening_curve(1), "new": opening_curve(101)}
    for name, curve in curves.items():
        write_video(tmp_path / f"{name}.mp4", drawn_faces(curve), crf=8)
    write_video(tmp_path / "blank.mp4", np.full((60, 128, 128, 3), 90, np.uint8))
    write_video(tmp_path / "short.mp4", drawn_faces(curves["new"][:20]))
    write_video(tmp_path / "small.mp4", drawn_faces(curves["new"], 64))
    return {p.stem: p for p in tmp_path.glob("*.mp4")}


def test_a_copy_of_the_truth_has_the_best_scores_and_no_leak(films: dict[str, Path]) -> None:
    result = score(films["new"], films["new"], source=films["old"])
    assert result.frames == 60 and result.faces == 1.0
    figures = result.figures
    assert figures["psnr"] == figures["lip_psnr"] == 100.0
    assert figures["opening_corr"] == pytest.approx(1) and figures["opening_corr_readout"] == pytest.approx(1)
    assert figures["leak_corr"] == pytest.approx(0, abs=1e-6)


def test_the_source_itself_scores_low_on_lips_and_leaks(films: dict[str, Path]) -> None:
    figures = score(films["old"], films["new"], source=films["old"]).figures
    assert figures["opening_corr"] < 0.6 and figures["raw_leak_corr"] == pytest.approx(1)
    assert figures["lip_psnr"] < figures["psnr"] < 60


def test_without_a_source_the_leak_is_none(films: dict[str, Path]) -> None:
    result = score(films["old"], films["new"])
    assert result.figures["leak_corr"] is None and result.figures["raw_leak_corr"] is None
    assert list(result.to_dict()) == ["frames", "faces", *(metric.name for metric in SCORED)]


@pytest.mark.parametrize(
    ("name", "message"),
    [("blank", "only 0% of the frames"), ("short", "differ in length"), ("small", "small.mp4 64x64")],
)
def test_videos_that_cannot_be_compared_are_refused(films: dict[str, Path], name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(films[name], films["new"])
