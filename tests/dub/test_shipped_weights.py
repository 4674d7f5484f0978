"""The shipped model dubs a rendered speaker that it was not trained on, and changes nothing but the lower face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from xdub.dub import dub_video
from xdub.media import probe, read_frames, write_video
from xdub.perception.mouth_readout import MouthReadout
from xdub.render import RenderedPair, render_full_clip

SEED, INDEX, SECONDS = 3, 4, 1.6
PACKAGE = Path(__file__).parents[2] / "xdub"


@pytest.fixture(scope="module")
def speaker() -> RenderedPair:
    return render_full_clip(SEED, INDEX, SECONDS, size=64, full_size=256)


@pytest.mark.parametrize("use", ["editor", "generator"])
def test_lips_follow_the_new_speech_and_the_rest_stays(
    speaker: RenderedPair, tmp_path: Path, use: str
) -> None:
    write_video(tmp_path / "v.mp4", speaker.full, audio=speaker.clip.audio, crf=8)
    wavfile.write(tmp_path / "a.wav", 16000, np.rint(speaker.twin.audio * 32767).astype(np.int16))
    report = dub_video(tmp_path / "v.mp4", tmp_path / "a.wav", tmp_path / "o.mp4", use=use)
    info = probe(tmp_path / "o.mp4")
    assert (report.frames, report.dubbed, info.frames) == (40, 40, 40)
    assert (info.width, info.height, info.has_audio) == (256, 256, True)

    out = read_frames(tmp_path / "o.mp4")
    opening = MouthReadout.load(PACKAGE / "weights_tiny" / "mouth_readout.safetensors").read(
        out, speaker.full_landmarks
    )
    new = np.corrcoef(opening, speaker.twin.opening)[0, 1]
    old = np.corrcoef(opening, speaker.clip.opening)[0, 1]
    assert new > 0.7 and new > old + 0.2

    eyes = speaker.full_landmarks[:, 36:48, 1].max(axis=1)
    for frame, before, y in zip(out, speaker.full, eyes, strict=True):
        error = (frame[: int(y)].astype(float) - before[: int(y)]) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 30
