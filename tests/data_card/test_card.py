"""The card of a data set: figures from manifest and ledger, charts, masks over frames, and costs, in one file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.data_card import facts as facts_module
from xdub.data_card import write_card
from xdub.data_card.facts import read_ledger, read_set
from xdub.data_card.sheet import clip_cells, draw_sheet

STAGES = {"footage": 1800.0, "seconds.decode": 90.0, "seconds.track": 900.0, "cores.decode": 180.0}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "talks", rows_per_shard=2) as writer:
        for seed in range(4):
            writer.add(make_clip(seed, num_frames=5 + 4 * seed))
    with Ledger(tmp_path / "talks") as ledger:
        for number in range(40):
            kept, value = number % 4 > 0, float(number)
            scores = {"sharpness": value, "sharpness.least": 12.0, "yaw": 5.0}
            ledger.add(
                LedgerRow(
                    input=f"{number}.mp4",
                    status="kept" if kept else "rejected",
                    check="" if kept else "sharpness",
                    value=None if kept else value,
                    message="" if kept else f"blurred <{number}>",
                    scores=scores | (STAGES if number < 4 else {}),
                )
            )
        ledger.add(LedgerRow(input="bad.mp4", status="failed", message="DecoderCrash: SIGSEGV"))
    return tmp_path / "talks"


def test_figures_come_from_the_manifest_and_the_ledger(dataset):
    manifest = read_manifest(dataset)
    assert manifest.speakers is not None
    figures = read_set(manifest, manifest.speakers)
    assert (figures.clips, figures.speakers, figures.kind) == (4, 3, "clips")
    assert figures.hours * 3600 == pytest.approx((5 + 9 + 13 + 17) / 25)
    assert figures.hours_of_speaker[0] * 3600 == pytest.approx((5 + 17) / 25)
    ledger = read_ledger(Ledger(dataset).rows())
    assert str(ledger.counts) == "30 kept, 10 rejected, 1 failed"
    check = ledger.checks["sharpness"]
    assert (len(check.kept), len(check.rejected), check.least, check.most) == (30, 10, 12.0, None)
    assert set(ledger.checks) == {"sharpness", "yaw"} and ledger.footage == 7200
    assert ledger.seconds == {"decode": 360.0, "track": 3600.0} and ledger.cores == {"decode": 720.0}
    assert len(ledger.examples["sharpness"]) == 3 and ledger.examples["failed"] == ["DecoderCrash: SIGSEGV"]


def test_the_card_is_one_file_that_shows_checks_rejects_masks_and_costs(dataset, tmp_path):
    path = write_card(dataset)
    html = path.read_bytes().decode()
    assert path.local == dataset / "card.html" and "talks: 0.0 minutes of clips" in html
    assert "sharpness: least 12" in html and "blurred &lt;0&gt;" in html and "data:image/jpeg;base64," in html
    costs = re.findall(r"<td>(decode|track)</td><td class=n>([\d.]+)</td><td class=n>([\d.]+)", html)
    assert costs == [("track", "0.500", "0.000"), ("decode", "0.050", "0.100")]
    assert not re.search(r'(?:src|href)="(?!data:|#)', html) and "<script" not in html
    assert write_card(dataset, tmp_path / "other.html").local == tmp_path / "other.html"


def test_clips_that_cannot_be_read_are_left_out_of_the_sheet(dataset):
    manifest = read_manifest(dataset)
    path = dataset / manifest.shards[0].file
    path.write_bytes(bytes(path.stat().st_size))
    assert draw_sheet(manifest) is not None
    for shard in manifest.shards:
        (dataset / shard.file).write_bytes(bytes(shard.bytes))
    assert draw_sheet(manifest) is None


def test_masks_colour_the_pixels_inside_of_them_alone():
    clip = make_clip(0)
    cells = clip_cells(clip)
    inside = clip.face_mask[0] | clip.lip_mask[0] | clip.occluder_mask[0]
    assert np.array_equal(cells[0][~inside], clip.frames[0][~inside])
    assert np.abs(cells[0][inside].astype(int) - clip.frames[0][inside]).mean() > 5


def test_values_of_a_large_set_are_drawn_evenly(monkeypatch):
    monkeypatch.setattr(facts_module, "SAMPLE", 200)
    rows = (LedgerRow(input=str(n), status="kept", scores={"yaw": float(n)}) for n in range(4000))
    values = read_ledger(rows).checks["yaw"]
    assert len(values.kept) == 200 and values.count == 4000
    assert np.mean(values.kept) == pytest.approx(2000, abs=250)
