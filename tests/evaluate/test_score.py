from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from xdub.errors import UserError
from xdub.evaluate.score import score
from xdub.media import write_video


class DrawnFaces:
    """Stands in for the tracker: finds the drawn mouth by its colour, so that the landmarks open and close
    with it.
    """

    def __enter__(self) -> DrawnFaces:
        return self

    def __exit__(self, *_: object) -> None: ...

    def track(self, frames: np.ndarray) -> DrawnFaces:
        points = synthetic.landmarks(len(frames), frames.shape[1])
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
    curves = {"old": synthetic.opening(1), "new": synthetic.opening(101)}
    for name, curve in curves.items():
        write_video(tmp_path / f"{name}.mp4", synthetic.faces(curve), crf=8)
    write_video(tmp_path / "blank.mp4", np.full((60, 128, 128, 3), 90, np.uint8))
    write_video(tmp_path / "short.mp4", synthetic.faces(curves["new"][:20]))
    write_video(tmp_path / "small.mp4", synthetic.faces(curves["new"], 64))
    return {p.stem: p for p in tmp_path.glob("*.mp4")}


def test_a_true_copy_scores_full_marks_and_no_leak(films: dict[str, Path]) -> None:
    result = score(films["new"], films["new"], source=films["old"])
    assert result.frames == 60 and result.faces == 1.0
    assert result.psnr == result.lip_psnr == 100.0
    assert result.opening_corr == pytest.approx(1) and result.opening_corr_readout == pytest.approx(1)
    assert result.leak_corr is not None and abs(result.leak_corr) < 1e-6


def test_the_source_itself_scores_low_on_lips_and_leaks(films: dict[str, Path]) -> None:
    result = score(films["old"], films["new"], source=films["old"])
    assert result.opening_corr < 0.6 and result.raw_leak_corr == pytest.approx(1)
    assert result.lip_psnr < result.psnr < 60


def test_without_a_source_no_leak_is_claimed(films: dict[str, Path]) -> None:
    assert score(films["old"], films["new"]).leak_corr is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("blank", "only 0% of the frames"), ("short", "differ in length"), ("small", "small.mp4 64x64")],
)
def test_what_cannot_be_compared_is_refused(films: dict[str, Path], name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(films[name], films["new"])
