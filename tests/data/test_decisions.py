"""Decisions of a person on masks: the page, the file, and who reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from xdub.config import load_recipe
from xdub.data.decisions import DECISIONS, rejected_clips
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.prepare import prepare_videos
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.pairs.units import excluded_rows, read_entries


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "ds"
    clips = [make_clip(seed, speaker="anna") for seed in range(3)]
    with ShardWriter(folder) as writer:
        for clip in clips:
            writer.add(clip)
    ledger = Ledger(folder)
    for number, clip in enumerate(clips):
        scores = {"occluded": 0.1 * number}
        ledger.add(LedgerRow(input=f"{number}.mp4", clip_id=clip.clip_id, status="kept", scores=scores))
    ledger.flush()
    return folder, clips


def test_later_lines_win_and_a_missing_file_rejects_nothing(tmp_path):
    file = tmp_path / DECISIONS
    assert rejected_clips(file) == frozenset()
    lines = [("a", "reject"), ("b", "accept"), ("c", "reject"), ("a", "accept")]
    file.write_text("\n".join(json.dumps({"clip_id": c, "decision": d}) for c, d in lines) + "\n\n")
    assert rejected_clips(file) == {"c"}
    for line in ("[]", "{", '{"clip_id": "a"}', '{"clip_id": "a", "decision": "perhaps"}'):
        file.write_text(line)
        with pytest.raises(UserError, match="line 1"):
            rejected_clips(file)


def test_a_named_file_that_is_missing_is_an_error(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="typo.jsonl: no such file of decisions"):
        prepare_videos([tmp_path], out, load_recipe("tiny"), decisions=tmp_path / "typo.jsonl")
    assert not out.exists()


def test_pairs_leave_out_a_rejected_clip_and_name_the_file(data):
    folder, clips = data
    recipe = load_recipe("tiny")
    assert not excluded_rows(read_entries(read_manifest(folder)), recipe)
    (folder / DECISIONS).write_text(json.dumps({"clip_id": clips[1].clip_id, "decision": "reject"}))
    (row,) = excluded_rows(read_entries(read_manifest(folder)), recipe)
    assert (row.input, row.status, row.check) == (clips[1].clip_id, "rejected", "review")
    assert DECISIONS in row.message


def test_the_page_shows_covered_faces_first_and_decides_by_keys(data, tmp_path):
    from xdub.cli import app

    folder, clips = data
    page = tmp_path / "review.html"
    result = CliRunner().invoke(app, ["review", "--data", str(folder), "--out", str(page)])
    assert result.exit_code == 0 and "2 clips" in result.output, result.output
    text = page.read_text("utf-8")
    assert text.index(clips[2].clip_id) < text.index(clips[1].clip_id) and clips[0].clip_id not in text
    assert text.count("data:image/jpeg;base64,") == 2 and "'reject'" in text and "decisions.jsonl" in text
    result = CliRunner().invoke(
        app, ["review", "--data", str(folder), "--out", str(page), "--least", "0", "--most", "1"]
    )
    assert "1 clips" in result.output
    result = CliRunner().invoke(app, ["review", "--data", str(folder), "--out", str(page), "--least", "0.9"])
    assert "no clip has 90 %" in result.output


def test_a_strip_marks_objects_inside_the_face_alone():
    from xdub.report.review_page import OBJECT, ReviewedClip, strip

    face, objects = np.zeros((2, 32, 32), bool), np.zeros((2, 32, 32), bool)
    face[:, 8:24, 8:24], objects[:, 12:30, 12:30] = True, True
    clip = ReviewedClip(
        clip_id="a",
        source="b",
        share=0.5,
        frames=np.zeros((2, 32, 32, 3), np.uint8),
        face=face,
        objects=objects,
    )
    picture = strip(clip)
    assert picture.shape == (32, 64, 3) and tuple(picture[18, 18]) == tuple(value // 2 for value in OBJECT)
    assert not picture[28, 28].any() and not picture[2, 2].any()
