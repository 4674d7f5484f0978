"""Digests of what `python -m perf unchanged` compares: rows of shards, losses, weights and frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNSTABLE = ("worker", "seconds", "message")
"""Columns of a ledger that are not compared: the worker, its seconds, and a text for people."""

Thing = dict[str, Any]
"""One compared result: its `digest`, whether it `decides` or is only reported, and its `losses`, `fields` or `file`."""


def thing(digest: str, *, decides: bool = True, **more: Any) -> Thing:
    """Return one compared result."""
    return {"digest": digest, "decides": decides, **more}


def data_set_things(folder: Path) -> dict[str, Thing]:
    """Digest the shards (rows field by field, and files), the exact truth beside them, and the ledger."""
    # Shards are named by number in earlier versions, and by content in later ones.
    shards = sorted(folder.glob("shard-*.parquet"), key=file_digest)
    ledgers = [*folder.glob("ledger.parquet"), *sorted(folder.glob("ledger/*.parquet"))]
    ledger = sorted(read_rows(ledgers), key=lambda row: (row["input"], row["clip_id"]))
    results = [{name: value for name, value in row.items() if name not in UNSTABLE} for row in ledger]
    things = {
        "rows": fields_thing(columns(sorted(read_rows(shards), key=lambda row: row["clip_id"]))),
        "shards": fields_thing({str(number): path.read_bytes() for number, path in enumerate(shards)}),
        "ledger": fields_thing(columns(results)),
        "ledger messages": thing(digest([row["message"] for row in ledger]), decides=False),
    }
    if truth := sorted(folder.glob("truth/*.npz")):
        things["truth"] = fields_thing({path.name: _arrays(path) for path in truth})
    return things


def training_things(folder: Path) -> dict[str, Thing]:
    """Digest losses, samples, metrics and weights of the phase in OUT/<phase>, and its sample strips."""
    steps = read_json_lines(folder / "steps.jsonl")
    metrics: dict[str, list[Any]] = {}
    for line in read_json_lines(folder / "journal.jsonl"):
        for name, value in line["values"].items() if line["kind"] == "metrics" else ():
            if not name.startswith("perf/"):
                metrics.setdefault(name, []).append((line["step"], float(value).hex()))
    (weights,) = (folder / "export").glob("*.safetensors")
    losses = [step["loss"] for step in steps]
    strips = sorted(folder.glob("samples/*.png"))
    return {
        "losses": thing(digest(losses), losses=losses),
        "samples": thing(digest([(step["step"], step["sample_ids"]) for step in steps])),
        "metrics": fields_thing(metrics),
        "weights": thing(file_digest(weights), file=str(weights)),
        "strips": thing(digest([(path.name, path.read_bytes()) for path in strips]), decides=False),
    }


def fields_thing(values: dict[str, Any]) -> Thing:
    """Return a result that is compared as a whole and reported by the fields that differ."""
    fields = {name: digest(value) for name, value in sorted(values.items())}
    return thing(digest(fields), fields=fields)


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each field in the order of the rows."""
    names = sorted({name for row in rows for name in row})
    return {name: [row.get(name) for row in rows] for name in names}


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Read all rows of Parquet files."""
    import pyarrow.parquet as pq

    return [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_film(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode a video: frames uint8 [F, H, W, 3], and sound [C, N] as the codec gives it."""
    import av

    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        sound = [frame.to_ndarray() for frame in file.decode(audio=0)] if file.streams.audio else []
    return np.stack(frames), np.concatenate(sound, axis=1) if sound else np.zeros((1, 0), np.float32)


def _arrays(path: Path) -> list[tuple[str, str]]:
    with np.load(path) as archive:
        return [(name, array_digest(archive[name])) for name in sorted(archive.files)]


def digest(value: Any) -> str:
    """Return the sha256 of plain data: numbers, texts, bytes, and lists, tuples and dicts of them."""
    return hashlib.sha256(repr(value).encode()).hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Return the sha256 of an array's values, shape and type."""
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
