"""From an exception to one line and an exit code. What is not the user's to mend keeps its traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

import typer
from typer.exceptions import TyperException

from xdub.errors import UserError

BAD_INPUT = 2
INTERRUPTED = 130

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
FILE_TROUBLE = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EROFS,
    errno.ENAMETOOLONG,
}


def run_app(app: typer.Typer, args: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(args, prog_name="xdub", standalone_mode=False)
    except typer.Abort:
        return 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except TyperException as error:
        return _refuse(_usage_line(error))
    except Exception as error:
        line = user_line(error)
        if line is None:
            raise
        return _refuse(line)
    if code == INTERRUPTED:
        print("xdub: interrupted; the same command continues where it can", file=sys.stderr)
    return code if isinstance(code, int) else 0


def user_line(error: BaseException) -> str | None:
    """What to tell the user in one line, or None if the error is ours. Looks through wrappers, e.g. Ray's."""
    causes = list(_causes(error))
    for cause in causes:  # first, for it often comes of an OSError and says more
        if isinstance(cause, UserError):
            return str(cause)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            place = f" at {cause.filename}" if cause.filename else ""
            return f"no space left on the disk{place}: free some, or write elsewhere with --out"
        if isinstance(cause, OSError) and cause.errno in FILE_TROUBLE and cause.filename:
            return f"{cause.filename}: {cause.strerror}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from. Innermost first: a wrapper's text may hold a whole traceback."""
    chain: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in chain:
            continue
        chain.append(current)
        queue += [getattr(current, "cause", None), current.__cause__]  # Ray's name for it, and Python's
        # Ray Train collects what happened on each worker.
        failures = getattr(current, "worker_failures", None)
        queue += failures.values() if isinstance(failures, dict) else []
    return reversed(chain)


def _usage_line(error: TyperException) -> str:
    message = getattr(error, "format_message", lambda: str(error))().replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "xdub"
    return f"{message.rstrip('.') or 'no command was given'}; see {command} --help"


def _refuse(line: str) -> int:
    print(f"xdub: error: {' '.join(line.split())}", file=sys.stderr)
    return BAD_INPUT
