"""Folders of this user: the cache, temporary files and sockets, also where the home cannot be written.

A container often runs under a user id that has no name and no home. Another user of the machine may have created a
folder of the expected name, so every private folder's owner is checked before use.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xdub.errors import UserError

SESSION_BYTES = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Length of the path that Ray appends to its temporary folder for its longest socket; process ids have 7 digits."""
SHARED_FOLDERS = ("/tmp", "/var/tmp")
"""Folders in which every user may create files, best first."""


def cache_folder() -> Path:
    """Return the folder of files that may be kept between runs: ``$XDG_CACHE_HOME/xdub`` or ``~/.cache/xdub``.

    Without a writable home the folder is in `private_folder`. The folder need not exist.

    Raises:
        UserError: no folder can be written.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification a relative path is ignored. It would name another folder in every worker.
    if os.path.isabs(base):
        return Path(base) / "xdub"
    default = home_cache_folder()
    if default is not None and can_write(default):
        return default
    return private_folder() / "cache" / "xdub"


def home_cache_folder() -> Path | None:
    """Return ``~/.cache/xdub``, which another program may have filled; None without a home."""
    home = home_folder()
    return None if home is None else home / ".cache" / "xdub"


def config_folder() -> Path:
    """Return the folder of the user's settings: ``$XDG_CONFIG_HOME/xdub`` or ``~/.config/xdub``; it need not exist.

    Without a writable home the folder is in `private_folder`.

    Raises:
        UserError: no folder can be written.
    """
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "xdub"
    home = home_folder()
    default = None if home is None else home / ".config" / "xdub"
    if default is not None and can_write(default):
        return default
    return private_folder() / "config" / "xdub"


def home_folder() -> Path | None:
    """Return the user's home, which may not be writable; None if the user has none that can be read."""
    try:
        home = Path.home()
    except RuntimeError:  # HOME is not set, and the user id has no entry in /etc/passwd
        return None
    usable = home.is_absolute() and os.path.isdir(home) and os.access(home, os.R_OK | os.X_OK)
    return home if usable else None


def private_folder() -> Path:
    """Return a folder for temporary files that only this user can enter; it is created if it does not exist.

    Raises:
        UserError: no folder for temporary files can be written.
    """
    for folder in private_folders():
        return folder
    raise UserError(
        f"{' '.join(_named_folders()) or 'TMPDIR'}: no temporary folder can be written; "
        "set TMPDIR to a folder of your own"
    )


def private_folders() -> Iterator[Path]:
    """Yield this user's folder in every folder for temporary files where one exists or can be created."""
    # A login session's folder comes late, because it is small, in memory, and removed at logout.
    session = [os.environ[name] for name in ("XDG_RUNTIME_DIR",) if os.environ.get(name)]
    for parent in dict.fromkeys((*_named_folders(), *SHARED_FOLDERS, *session, "/dev/shm")):
        folder = Path(parent).absolute() / f"xdub-{os.getuid()}"
        if _is_private(folder):
            yield folder


def ray_folder() -> Path:
    """Return the folder for the sessions of a Ray of our own: its path is short enough for Ray's sockets.

    ``RAY_TMPDIR`` names its parent, as in Ray. By default the folder is in `private_folder`, or in another folder
    for temporary files if that path is too long.

    Raises:
        UserError: RAY_TMPDIR cannot be used, or no folder can.
    """
    named = os.environ.get("RAY_TMPDIR")
    folders = [Path(named).absolute() / "ray"] if named else [folder / "ray" for folder in private_folders()]
    reason = "no temporary folder can be written"
    for folder in folders:
        try:
            _check_length(folder)
            folder.mkdir(parents=True, exist_ok=True)
            _try_socket(folder)
        except OSError as error:
            reason = f"Ray cannot create its sockets in {folder} ({error.strerror or error})"
            continue
        return folder
    variable = "RAY_TMPDIR" if named else "TMPDIR"
    raise UserError(
        f"{variable}={os.environ.get(variable, '')}: {reason}; set RAY_TMPDIR to a folder on a local disk that you "
        f"can write and whose path has at most {_socket_limit() - len('/ray')} bytes"
    )


def spill_folder(sessions: Path) -> str | None:
    """Return where Ray writes objects that do not fit in memory, if that is not the session's folder.

    Objects can be large, so they go to the disk that TMPDIR names also if its path is too long for sockets.
    """
    if os.environ.get("RAY_TMPDIR") or sessions.parent == private_folder():
        return None
    return str(private_folder())


def compiled_folder() -> Path:
    """Return a private folder whose files may be executed, for compiled code; the home is the last choice.

    Raises:
        UserError: no folder can be written.
    """
    folders = [folder / "compiled" for folder in private_folders() if allows_execution(folder)]
    return folders[0] if folders else cache_folder() / "compiled"


def allows_execution(folder: Path) -> bool:
    """Return False if the folder is on a file system whose files cannot be executed (mount option ``noexec``)."""
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def can_write(folder: Path) -> bool:
    """Return True if the folder can be written, or created because its nearest existing parent can be."""
    for parent in (folder, *folder.parents):
        if os.path.lexists(parent):
            return parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    return False


def is_foreign(folder: Path) -> bool:
    """Return True if another user owns the folder, so its files may be planted."""
    return os.path.lexists(folder) and folder.lstat().st_uid != os.getuid()


def _named_folders() -> list[str]:
    """Return the existing folders that the environment names for temporary files, in Python's order."""
    names = ("TMPDIR", "TEMP", "TMP")
    return [os.environ[name] for name in names if os.path.isdir(os.environ.get(name, ""))]


def _is_private(folder: Path) -> bool:
    """Create the folder unless it exists; return True if only this user owns and enters it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")  # a full disk still creates files
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and stat.S_IMODE(status.st_mode) & 0o077 == 0
    )


def _check_length(folder: Path) -> None:
    if len(os.fsencode(folder)) > _socket_limit():
        raise OSError("the path of a socket is limited to 107 bytes")


def _try_socket(folder: Path) -> None:
    """Create and remove a socket. OSError if the file system has none."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="s") as name, socket.socket(socket.AF_UNIX) as trial:
        trial.bind(os.path.join(name, "s"))


def _socket_limit() -> int:
    """Return the most bytes of the path of Ray's temporary folder; a socket's path has 107 at most (103 on macOS)."""
    return (107 if os.uname().sysname == "Linux" else 103) - SESSION_BYTES
