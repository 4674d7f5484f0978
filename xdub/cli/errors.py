"""Convert an exception to one line and an exit code; an error that the user cannot correct keeps its traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

import typer
from typer.exceptions import TyperException

from xdub.cli.stopping import clean_stop, reader_has_left
from xdub.errors import UserError
from xdub.files.atomic import DISK_FULL

BAD_INPUT = 2
"""Exit code of an error that the user can correct."""
INTERRUPTED = 130
"""Exit code after Ctrl-C or a request to stop."""
PIPE_CLOSED = 141
"""Exit code after the reader of stdout has left, as in ``xdub ... | head``; that of a process that SIGPIPE ends."""
PATH_ERRORS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EROFS,
    errno.ENAMETOOLONG,
}
"""Errors of a path that the user chose."""


def run_app(app: typer.Typer, args: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        with clean_stop():
            code = app(args, prog_name="xdub", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as error:
        if reader_has_left():
            return PIPE_CLOSED
        return error.code if isinstance(error.code, int) else 1
    except typer.Abort:
        return 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except TyperException as error:
        return _refuse(_usage_line(error))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_has_left():
            return PIPE_CLOSED
        line = user_line(error)
        if line is None:
            raise
        return _refuse(line)
    if code == INTERRUPTED:
        print("xdub: interrupted; the same command continues where it can", file=sys.stderr)
    return code if isinstance(code, int) else 0


def user_line(error: BaseException) -> str | None:
    """Return the line to print for an error of the user, or None for any other error.

    Causes inside wrappers such as Ray's are searched.
    """
    causes = list(_causes(error))
    # A UserError comes first, because it is often raised from an OSError and explains more.
    line = None
    for cause in causes:
        # An outer error that repeats the line adds its context, for example the file; Ray's has many lines.
        if isinstance(cause, UserError) and (line is None or _extends(str(cause), line)):
            line = str(cause)
    if line is not None:
        return line
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            path = f" at {cause.filename}" if cause.filename else ""
            return f"no space left on the disk{path}: free some, or write elsewhere with --out"
        if isinstance(cause, OSError) and cause.errno in PATH_ERRORS and cause.filename:
            return f"{cause.filename}: {cause.strerror}"
    return None


def _extends(text: str, line: str) -> bool:
    """Return whether a text is one line that contains another one."""
    return line in text and "\n" not in text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Return the error and its causes, innermost first, because a wrapper's text may hold a whole traceback."""
    chain: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in chain:
            continue
        chain.append(current)
        # `cause` is Ray's attribute, `__cause__` Python's.
        queue += [getattr(current, "cause", None), current.__cause__]
        # Ray Train collects the error of each worker.
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
