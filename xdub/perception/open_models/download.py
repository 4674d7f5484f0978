"""Download of one large file: continued after a kill or a lost connection, and kept only with the right content.

The bytes go to ``NAME.part``. A later call requests the rest of them, if the server's file is still the same.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xdub
from xdub.errors import UserError, error_reason
from xdub.files.atomic import DISK_FULL, write_json
from xdub.progress import Report, ignore

CHUNK = 1 << 20
"""Most bytes of one read."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as lost."""
ATTEMPTS = 4
"""Connections in a row without a new byte after which the download stops."""
PAUSE = 2.0
"""Seconds before the second attempt; every further pause is twice as long."""
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer later."""

LOST = (ConnectionError, TimeoutError, ssl.SSLError)
"""Errors of a connection that broke while it was read."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-")
"""Beginning of the header that states the bytes of a partial answer."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on a web server."""

    url: str
    size: int | None = None
    """Bytes; None: unknown before the server answers."""
    sha256: str | None = None
    """Expected hash; None: unknown."""
    token: str | None = None
    """Login, which is sent to the first server only and not to one that it redirects to."""


class _LostConnectionError(Exception):
    """A failure after which another attempt may succeed."""


def download(remote: Remote, target: Path, *, report: Report = ignore) -> str:
    """Download a file to ``target``, whole and verified, and return its sha256. ``report`` gets the bytes so far.

    An earlier ``.part`` is continued. Content with another hash than expected is deleted and downloaded once more.

    Raises:
        UserError: the server has no such file or refuses it, stays unreachable, serves wrong content twice, or the disk
            is full.
    """
    part = target.with_name(f"{target.name}.part")
    for last in (False, True):
        try:
            _complete(remote, part, report)
            digest = _sha256(part)
        except OSError as error:
            if error.errno in DISK_FULL:
                message = (
                    f"{part}: the disk is full; free some space, the same command continues the download"
                )
                raise UserError(message) from error
            raise
        if remote.sha256 is None or digest == remote.sha256:
            part.replace(target)
            _note(part).unlink(missing_ok=True)
            return digest
        _forget(part)
        if last:
            raise UserError(
                f"{remote.url}: the server sent another content twice (sha256 {digest[:16]}..., expected "
                f"{remote.sha256[:16]}...); it was deleted"
            )
    raise AssertionError("the loop returns or raises")


def _complete(remote: Remote, part: Path, report: Report) -> None:
    """Request the missing bytes of a ``.part`` until it is complete."""
    failures = 0
    while True:
        before = _length(part)
        try:
            _receive(remote, part, report)
            return
        except _LostConnectionError as error:
            failures = 1 if _length(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise UserError(
                    f"{remote.url}: the download stopped after {_length(part):,} bytes ({error}); the same command "
                    "continues it"
                ) from error
            time.sleep(PAUSE * 2 ** (failures - 1))


def _receive(remote: Remote, part: Path, report: Report) -> None:
    """Append the rest of the file to a ``.part``, or all of it if the server's file is another one by now."""
    state = _read_note(part)
    if state.get("url") != remote.url or (remote.size is not None and _length(part) > remote.size):
        _forget(part)
        state = {}
    start = _length(part)
    if start and start == state.get("total", remote.size):
        return
    headers = {"User-Agent": f"xdub/{xdub.__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        # A weak tag cannot prove that two files have the same bytes.
        if (tag := str(state.get("etag") or "")) and not tag.startswith("W/"):
            headers["If-Range"] = tag
    request = urllib.request.Request(remote.url, headers=headers)
    if remote.token:
        request.add_unredirected_header("Authorization", f"Bearer {remote.token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            _store(remote, part, answer, start, report)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # The part is longer than the server's file, or its length is unknown here.
            _forget(part)
            raise _LostConnectionError("the server's file is shorter than the part") from error
        if error.code in BUSY:
            raise _LostConnectionError(f"status {error.code}") from error
        raise UserError(f"{remote.url}: {_refusal(error)}") from error
    except (urllib.error.URLError, http.client.HTTPException, *LOST) as error:
        reason = getattr(error, "reason", None)
        cause = reason if isinstance(reason, Exception) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UserError(
                f"{remote.url}: the server's certificate is not trusted ({error_reason(cause)}); set SSL_CERT_FILE"
            ) from error
        raise _LostConnectionError(error_reason(cause)) from error


def _store(remote: Remote, part: Path, answer: http.client.HTTPResponse, start: int, report: Report) -> None:
    """Write the body of an answer behind the first ``start`` bytes, or from the beginning without a partial answer."""
    continues = answer.status == 206 and _first_byte(answer.headers.get("Content-Range", "")) == start
    if answer.status == 206 and not continues:
        _forget(part)
        raise _LostConnectionError("the server sent another range than requested")
    start = start if continues else 0
    length = answer.headers.get("Content-Length")
    total = remote.size if length is None else start + int(length)
    if remote.size is not None and total != remote.size:
        raise UserError(f"{remote.url}: has {total:,} bytes on the server, but {remote.size:,} are expected")
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise UserError(
            f"{part}: needs {(total - start) / 1e9:.2f} GB, but {part.parent} has {free / 1e9:.2f} GB free"
        )
    write_json(
        _note(part),
        {"url": remote.url, "etag": answer.headers.get("ETag")} | ({"total": total} if total else {}),
    )
    with part.open("r+b" if continues else "wb") as file:
        file.seek(start)
        report(start, total)
        # `read` would wait for a whole chunk, which a kill would lose.
        while block := answer.read1(CHUNK):
            file.write(block)
            file.flush()
            start += len(block)
            report(start, total)
    if total is not None and start < total:
        raise _LostConnectionError("the connection was closed early")


def _refusal(error: urllib.error.HTTPError) -> str:
    """Return words for a status that another attempt does not change."""
    if error.code in (401, 403):
        return "the server demands a login or consent; accept the terms on the model's page and set HF_TOKEN"
    if error.code == 404:
        return "the server has no such file"
    return f"the server answers with status {error.code}"


def _first_byte(content_range: str) -> int | None:
    match = CONTENT_RANGE.match(content_range)
    return None if match is None else int(match[1])


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _note(part: Path) -> Path:
    """Return the file that records which server's file a ``.part`` belongs to."""
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> Mapping[str, str | int | None]:
    try:
        content = json.loads(_note(part).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _forget(part: Path) -> None:
    """Delete a ``.part`` and its record."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
