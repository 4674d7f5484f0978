"""Data sets as earlier versions wrote them: all columns in manifest.json, numbered shards, the ledger in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xdub.data.clip import Clip, schema, to_row
from xdub.data.ledger import LedgerRow, ledger_schema
from xdub.files.content import file_sha256


def write_earlier_set(
    folder: Path,
    clips: Sequence[Clip],
    ledger: Sequence[LedgerRow] = (),
    *,
    rows_per_shard: int = 2,
    speakers: bool = True,
    scores: bool = True,
) -> Path:
    """Write a data set of version 1; older ones have no ``speakers`` in the manifest and no scores in the ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, len(clips), rows_per_shard)):
        rows = [to_row(clip) for clip in clips[start : start + rows_per_shard]]
        path = folder / f"shard-{number:05d}.parquet"
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema()),
            path,
            row_group_size=1,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
        )
        shards.append(
            dict(file=path.name, rows=len(rows), bytes=path.stat().st_size, sha256=file_sha256(path))
        )
    kind = "pairs" if clips and clips[0].reference is not None else "clips"
    raw = {"schema_version": 1, "kind": kind, "recipe": None, "shards": shards}
    raw |= {"ids": [clip.clip_id for clip in clips], "num_frames": [clip.num_frames for clip in clips]}
    raw |= {"speakers": [clip.speaker for clip in clips]} if speakers else {}
    (folder / "manifest.json").write_text(json.dumps(raw, indent=1) + "\n")
    if ledger:
        table = pa.Table.from_pylist([asdict(row) for row in ledger], schema=ledger_schema())
        pq.write_table(table if scores else table.drop_columns(["scores"]), folder / "ledger.parquet")
    return folder
