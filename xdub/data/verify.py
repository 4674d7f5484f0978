"""Verification of shards: every machine hashes a shard once, when it first opens the shard.

Training therefore starts immediately on a set of any size, and the check covers the bytes that this machine reads,
whether copied, mounted or damaged. The result is stored outside of the data set, which may be read-only and shared:
in ~/.cache/xdub/shards (see `cache_folder`), one small file per shard. The result holds for the same file only
(device, inode, size, times of content and inode), so an overwritten file is hashed again even if its time is unchanged.
Later damage is detected by the checksum of every Parquet page, which each read verifies (`shards.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from xdub.data.columns import Shard
from xdub.data.manifest import check_shard
from xdub.errors import UserError
from xdub.files.lock import exclusive
from xdub.files.storage import Location
from xdub.files.user_folders import cache_folder

SETTLED_SECONDS = 2.0
"""Age of a change before its hash is stored. A newer file could change again within the same clock tick."""


def verify_shard(location: Location, shard: Shard) -> None:
    """Raise UserError unless the file has the manifest's size and sha256; hash it unless the cache has the result.

    If several processes open a shard at the same time, one hashes it and the others wait for the result. A shard in an
    object store is not read a second time for its hash: its size and the checksums of its pages are verified.
    """
    folder, path = location.parent, location.local
    check_shard(folder, shard, verify=False)
    if path is not None:
        verify_once(path, shard.sha256, lambda: check_shard(folder, shard, verify=True))


def verify_once(path: Path, sha256: str, check: Callable[[], None]) -> None:
    """Call ``check``, which hashes a file and raises UserError, unless an earlier call found ``sha256``."""
    with _record(path) as record:
        identity = _identity(path)
        expected = identity | {"sha256": sha256}
        if _read(record) == expected:
            return
        check()
        settled = time.time_ns() - identity["ctime_ns"] > SETTLED_SECONDS * 1e9
        if record is not None and settled and _identity(path) == identity:
            record.truncate(0)
            record.write(json.dumps(expected))


def _identity(path: Path) -> dict[str, int]:
    """Return the numbers that change with the file."""
    stat = path.stat()
    return {
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
        "inode": stat.st_ino,
        "device": stat.st_dev,
    }


@contextlib.contextmanager
def _record(path: Path) -> Iterator[IO[str] | None]:
    """Yield the shard's file in the cache, locked; None if the cache cannot be written."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    with contextlib.ExitStack() as stack:
        try:
            folder = cache_folder() / "shards"
            folder.mkdir(parents=True, exist_ok=True)
            record = stack.enter_context(exclusive(folder / f"{name}.json"))
        except (OSError, UserError):
            record = None
        yield record


def _read(record: IO[str] | None) -> dict[str, Any] | None:
    """Read a stored result; None if the file is empty, or incomplete because its writer was killed."""
    if record is None:
        return None
    record.seek(0)
    try:
        return json.load(record)
    except ValueError:
        return None
