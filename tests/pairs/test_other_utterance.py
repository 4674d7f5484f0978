"""A clip needs another utterance of its speaker; once speakers are grouped, the same command builds its pair."""

from __future__ import annotations

import json

from xdub.data.decisions import DECISIONS
from xdub.data.ledger import Ledger
from xdub.data.manifest import read_manifest
from xdub.data.manifest_files import assign_speakers
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.pairs.factory import build_pairs
from xdub.pairs.testing import plain_judges


def test_lone_clips_are_rejected_until_their_speakers_are_grouped(models, tmp_path):
    folder, recipe = models
    data, out = tmp_path / "data", tmp_path / "out"
    with ShardWriter(data) as writer:
        for seed in range(2):
            writer.add(make_clip(seed, num_frames=5, speaker=f"file {seed}"))

    def build():
        return build_pairs(recipe, folder, data, out, local=True, judges=plain_judges())

    first = build()
    assert first.inputs == first.counts["rejected:other_utterance"] == 2 and not first.counts["kept"]
    rows = list(Ledger(out).rows())
    assert [(row.check, row.value, row.threshold) for row in rows] == [("other_utterance", 0.0, 1.0)] * 2
    assert "xdub speakers" in rows[0].message
    assert build().counts == first.counts
    manifest = read_manifest(data)
    assign_speakers(manifest.folder, list(manifest.ids), ["anna", "anna"])
    grouped = build()
    assert grouped.counts["rejected:other_utterance"] == 0
    assert (
        grouped.inputs == 2 == grouped.counts["kept"] + grouped.counts["rejected"] and grouped.counts["kept"]
    )


def test_a_clip_whose_masks_are_accepted_later_gets_its_pair(models, tmp_path):
    folder, recipe = models
    data, out = tmp_path / "data", tmp_path / "out"
    with ShardWriter(data) as writer:
        for seed in range(2):
            writer.add(make_clip(seed, num_frames=5, speaker="anna"))
    ids = list(read_manifest(data).ids)

    def build(decision: str):
        with (data / DECISIONS).open("a") as file:
            file.write(json.dumps({"clip_id": ids[0], "decision": decision}) + "\n")
        return build_pairs(recipe, folder, data, out, local=True, judges=plain_judges())

    assert build("reject").counts["rejected:review"] == 1
    accepted = build("accept")
    assert accepted.inputs == 2 and accepted.counts["rejected:review"] == 0
    assert ids[0] in {row.input for row in Ledger(out).rows() if row.check != "review"}
