"""The MLflow store of a run: its address for any file name, its place after the run folder was moved, its client."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from xdub.errors import UserError
from xdub.files.atomic import sync
from xdub.files.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_DATABASE_PATH = 500
"""Longest path of a database, in bytes: SQLite opens paths of at most 512 bytes, its journal's suffix included."""
_UNSAFE = re.compile(r"[%?#\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that end or change the path in an address, or that its parsers drop."""
_OPENED: dict[Path, tuple[int, int | None]] = {}
"""Database -> number of files that this process has seen replaced there, and the inode of the latest file."""


def sqlite_uri(file: Path) -> str:
    """Return the address of a database file with any name.

    A plain name is written unchanged. In any other name MLflow, SQLAlchemy and SQLite would each read another path, so
    SQLite gets its own escaped form. The scheme then names the driver, because MLflow creates the folder that follows
    ``sqlite:///`` without decoding it.

    Raises:
        UserError: SQLite or MLflow cannot open a file of this name.
    """
    path, name = str(file), os.fsencode(file)
    remedy = "choose another --out or set MLFLOW_TRACKING_URI"
    if len(name) > MAX_DATABASE_PATH:
        raise UserError(f"{file}: a path of {len(name)} bytes, SQLite opens {MAX_DATABASE_PATH}; {remedy}")
    if re.search(r"[\ud800-\udfff]", path):
        raise UserError(f"{name!r}: the name is not UTF-8, so MLflow cannot open it; {remedy}")
    return _escaped_uri(file) if _UNSAFE.search(path) else f"sqlite:///{path}"


def _escaped_uri(file: Path) -> str:
    from sqlalchemy.engine import make_url

    escaped = quote(os.fsencode(file))
    # SQLAlchemy decodes the path from version 2.1 on, and SQLite decodes it again.
    if make_url("sqlite:///%25").database == "%":
        escaped = quote(escaped)
    return f"sqlite+pysqlite:///file:{escaped}?uri=true"


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of an address; None for a server, or for a database in memory."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    name = url.database or ":memory:"
    if "uri" in url.query and name.startswith("file:"):
        return Path(os.fsdecode(unquote_to_bytes(name.removeprefix("file:"))))
    return None if name == ":memory:" else Path(name).absolute()


def local_path(uri: str) -> Path | None:
    """Return the path of a ``file:`` address or of a plain path; None for any other address."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and not parts.netloc else None


def plain_text(value: object) -> str:
    """Return a value as text that every store accepts; a file name may hold bytes that are not UTF-8."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def without_credentials(uri: str) -> str:
    """Return an address without the user, password or token before its host."""
    return re.sub(r"(?<=://)[^/]*@", "", uri)


def own_uri(run: RunFolder) -> str:
    """Return the address of the database in the run folder; raise UserError as `sqlite_uri` does."""
    return sqlite_uri(run.database.resolve())


def recorded_uri(run: RunFolder, state: Mapping[str, Any]) -> str:
    """Return the present address of the store that ``state`` (OUT/run_state.json) names.

    A database that was moved or copied together with the run folder is used at its new place, even where the old one
    still exists.
    """
    recorded = str(state["tracking_uri"])
    file = sqlite_file(recorded)
    if file is None:
        return recorded
    folder, files = run.path.resolve(), [file]
    if "database" in state:
        files.insert(0, Path(os.path.normpath(folder / state["database"])))
    elif file.name == run.database.name:
        # A run of an earlier version does not record where the database is relative to it.
        files.insert(0, folder / run.database.name)
    return next((sqlite_uri(file) for file in files if file.is_file()), recorded)


def store_record(run: RunFolder, uri: str) -> dict[str, str]:
    """Return what OUT/run_state.json records of the store at ``uri``."""
    record, file = {"tracking_uri": without_credentials(uri)}, sqlite_file(uri)
    if file is not None:
        record["database"] = os.path.relpath(file, run.path.resolve())
    return record


def current_uri(run: RunFolder, state: Mapping[str, Any]) -> str:
    """Return the address of the store to write to.

    MLFLOW_TRACKING_URI comes first, then the store that has the runs, then a database in the run folder.

    Raises:
        UserError: see `sqlite_uri`.
    """
    if address := os.environ.get("MLFLOW_TRACKING_URI"):
        file = sqlite_file(address)
        # A relative address depends on the current folder.
        return (
            address if file is None or Path(address.partition(":///")[2]).is_absolute() else sqlite_uri(file)
        )
    if "tracking_uri" in state:
        uri = recorded_uri(run, state)
        file = sqlite_file(uri)
        if file is None or file.is_file():
            return uri
    return own_uri(run)


def artifact_folder(run: RunFolder, uri: str) -> Path | None:
    """Return the folder of files beside a database; None for a server, which has a folder of its own."""
    file = sqlite_file(uri)
    return None if file is None else RunFolder(file.parent).artifacts.resolve()


def moves_with_run(run: RunFolder, uri: str) -> Path | None:
    """Return the folder of the database if it is the run folder or the folder around it, else None."""
    file, folder = sqlite_file(uri), run.path.resolve()
    own = file is not None and file.name == run.database.name and file.parent in (folder, folder.parent)
    return file.parent if file is not None and own else None


def connect(uri: str) -> MlflowClient:
    """Return a client that gives up soon, because the journal keeps the records and retries.

    Raises:
        UserError: the database of ``uri`` cannot be opened or created, or exists in memory only.
    """
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # Alembic and MLflow log every creation of a database and every retry; MLflow's import sets another level.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if uri.startswith("sqlite"):
        _open_database(uri)
    return MlflowClient(tracking_uri=_fresh_uri(uri))


def _open_database(uri: str) -> None:
    """Create the database if it does not exist, and raise UserError if SQLite cannot open it.

    MLflow would retry an impossible file for minutes. A file in which it was interrupted is never usable again, so the
    tables are complete before the file has its name.
    """
    file = sqlite_file(uri)
    if file is None:
        raise UserError(f"{uri}: this database ends with its process; name a file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with tempfile.TemporaryDirectory(prefix=".", dir=file.parent) as folder:
                new = Path(folder) / "d"
                with new.open("wb") as copy:
                    copy.write(_empty_database())
                    copy.flush()
                    sync(copy.fileno())
                # Another process may have created the database in the meantime.
                if not file.exists():
                    os.replace(new, file)
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA schema_version")
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"{file}: SQLite cannot open it ({error}); set MLFLOW_TRACKING_URI to another"
        ) from error


@cache
def _empty_database() -> bytes:
    """Return the file of a database with MLflow's tables, which MLflow creates by two seconds of migrations."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(prefix="xdub-") as folder:
        file = Path(folder) / "d"
        MlflowClient(tracking_uri=_escaped_uri(file)).search_experiments(max_results=1)
        return file.read_bytes()


def _fresh_uri(uri: str) -> str:
    """Return an address that opens the file which is at the place of the database now.

    MLflow keeps the connections of an address for the life of the process. They would read and write a file that was
    moved or removed, so its successor gets an address with a number, which SQLite ignores.
    """
    file = sqlite_file(uri)
    if file is None:
        return uri
    inode = file.stat().st_ino if file.is_file() else None
    number, before = _OPENED.get(file, (0, None))
    if before not in (None, inode):
        number += 1
    _OPENED[file] = (number, inode)
    return f"{_escaped_uri(file)}&opened={number}" if number else uri
