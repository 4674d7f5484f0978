"""Shards are hashed once on every machine that reads them, when it first opens them.

So a set of any size starts at once, and what counts is checked: the bytes that this machine gets, copied, mounted or
rotten. That a shard was right is remembered outside of the data set, which may be read-only and serves many machines:
in ~/.cache/xdub/shards (XDG_CACHE_HOME), one small file a shard. It holds for the same file only (device, inode, size,
times of content and of inode), so copying over it, even with its old time, means hashing again. Decay after
that is caught by the checksum of every Parquet page, which each read compares (`shards.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from xdub.data.manifest import Shard, check_shard
from xdub.files.lock import exclusive

SETTLED_SECONDS = 2.0
"""A file that changed just now may change again without showing it: clocks of file systems are coarse."""


def verify_shard(path: Path, shard: Shard) -> None:
    """UserError unless the file has the size and the sha256 of the manifest. Hashes unless this machine remembers.

    Of many processes that open a shard at the same time, one reads it and the others wait for its word.
    """
    check_shard(path.parent, shard, verify=False)
    with _record(path) as record:
        now = _identity(path) | {"sha256": shard.sha256}
        if _read(record) == now:
            return
        check_shard(path.parent, shard, verify=True)
        settled = time.time_ns() - now["ctime_ns"] > SETTLED_SECONDS * 1e9
        if record is not None and settled and _identity(path) | {"sha256": shard.sha256} == now:
            record.truncate(0)
            record.write(json.dumps(now))


def _identity(path: Path) -> dict[str, Any]:
    told = path.stat()
    return {
        "bytes": told.st_size,
        "mtime_ns": told.st_mtime_ns,
        "ctime_ns": told.st_ctime_ns,
        "inode": told.st_ino,
        "device": told.st_dev,
    }


@contextlib.contextmanager
def _record(path: Path) -> Iterator[IO[str] | None]:
    """The shard's file in the cache, locked; None where there can be no cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xdub" / "shards"
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            record = stack.enter_context(exclusive(folder / f"{name}.json"))
        except OSError:
            record = None
        yield record


def _read(record: IO[str] | None) -> dict[str, Any] | None:
    if record is None:
        return None
    record.seek(0)
    try:
        return json.load(record)
    except ValueError:  # empty, or its writer was killed
        return None
