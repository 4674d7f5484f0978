"""Read data sets with a damaged shard in one process, and print one line of JSON for each: `perf.system.mutations`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from xdub.data.clip import from_row
from xdub.data.manifest import read_manifest
from xdub.data.shards import ShardReader
from xdub.errors import UserError


def rows_of(folder: Path, *, verify: bool) -> list[Any]:
    """Return each row that can be decoded, or the error that reading it raised; nothing if the set is refused."""
    try:
        manifest = read_manifest(folder)
    except UserError:
        return []
    reader = ShardReader(manifest, verify=verify)
    values: list[Any] = []
    for index in range(len(manifest.ids)):
        try:
            row = reader.row(index)
            from_row(row)
            values.append(row)
        except Exception as error:
            values.append(error)
    return values


def compare(
    folder: Path, truth: list[Any], damaged: set[int], *, verify: bool
) -> tuple[Counter[str], int, list[str]]:
    """Return the number of rows by result, of harmed rows of whole shards, and errors that are no `UserError`."""
    counts: Counter[str] = Counter()
    harmed, defects = 0, []
    values = rows_of(folder, verify=verify)
    if not values:
        # A file of another size: the set names it and opens again when the file is replaced.
        counts["set refused"] = len(truth)
        return counts, harmed, defects
    for number, (value, expected) in enumerate(zip(values, truth, strict=True)):
        if isinstance(value, Exception):
            result = "refused"
            if not isinstance(value, UserError):
                defects.append(f"{folder.name} row {number}: {type(value).__name__}: {value}"[:300])
        else:
            result = "equal" if value == expected else "changed"
        counts[result] += 1
        harmed += number not in damaged and result != "equal"
    return counts, harmed, defects


def main() -> None:
    """Compare each folder of the command line with the first."""
    source, *folders = (Path(text) for text in sys.argv[1:])
    truth = rows_of(source, verify=False)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for folder in folders:
            manifest, damaged, first = read_manifest(source), set(), 0
            for shard in manifest.shards:
                if (folder / shard.file).read_bytes() != (source / shard.file).read_bytes():
                    damaged |= set(range(first, first + shard.rows))
                first += shard.rows
            result: dict[str, Any] = {"harmed": 0, "defects": []}
            for mode, verify in (("verified", True), ("unverified", False)):
                counts, harmed, defects = compare(folder, truth, damaged, verify=verify)
                result[mode] = counts
                result["harmed"] += harmed
                result["defects"] += [f"{mode}: {text}" for text in defects]
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
