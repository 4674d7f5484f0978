"""URIs of file systems: how they are opened, and their texts without credentials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from xdub.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def open_uri(uri: str) -> tuple[FileSystem, str]:
    """Return the file system of a URI or path, and the path in it. Raise UserError for an unknown scheme."""
    import pyarrow as pa
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    uri = absolute_uri(uri)
    try:
        return FileSystem.from_uri(_with_small_uploads(uri))
    except pa.ArrowInvalid as error:
        unknown = ("Unrecognized filesystem type", "Cannot parse URI")
        if not any(text in str(error) for text in unknown):
            raise UserError(f"{shown(uri)}: {without_secrets(uri, first_line(error))}") from None
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(uri)
    except (ImportError, ValueError) as error:
        hint = "pyarrow opens s3, gs, hdfs and file; fsspec opens other schemes"
        raise UserError(f"{shown(uri)}: {without_secrets(uri, first_line(error))} ({hint})") from None
    return PyFileSystem(FSSpecHandler(filesystem)), path


def _with_small_uploads(uri: str) -> str:
    """Let pyarrow send a small file to S3 in one request in place of three."""
    if not uri.startswith("s3://") or "allow_delayed_open=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def absolute_uri(uri: str) -> str:
    """Return a URI unchanged, and a path as a ``file://`` URI."""
    return uri if "://" in uri else Path(uri).expanduser().resolve().as_uri()


def shown(uri: str) -> str:
    """Return the URI without credentials: ``...`` replaces user info, and the query is left out."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    return f"{scheme}://" + re.sub(r"^[^/]*@", "...@", rest.partition("?")[0])


def without_secrets(uri: str, message: str) -> str:
    """Return a message in which ``...`` replaces the URI's user info and the values of its query."""
    authority, _, query = uri.partition("://")[2].partition("?")
    user = authority.partition("/")[0].rpartition("@")[0]
    secrets = {user, unquote(user), *re.split("[:]", user), *(unquote(part) for part in user.split(":"))}
    secrets |= {query, *(value for _, value in parse_qsl(query))}
    for secret in sorted(secrets, key=len, reverse=True):
        message = message.replace(secret, "...") if len(secret) > 2 else message
    return message


def first_line(error: BaseException) -> str:
    """Return an error in one short line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
