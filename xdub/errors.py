"""Errors that a user can cause, reported in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input: the message names the offending value and the fix. The CLI prints one line and exits with 2."""


@contextmanager
def loading_pretrained(setting: str, path: object) -> Iterator[None]:
    """Convert the libraries' errors for a wrong folder or hub name into a UserError, around `from_pretrained`."""
    try:
        yield
    except UserError:
        raise
    # A damaged file or one of another model may raise nearly any error in a library.
    except Exception as error:
        raise UserError(
            f"{setting}={path}: cannot be loaded ({error_reason(error)}); give a folder that holds the model, or a "
            "hub name that this machine can reach"
        ) from error


def error_reason(error: BaseException, limit: int = 160) -> str:
    """Return the first line of a library's error for a parenthesis, or the error's type if it has no text."""
    text = str(error).strip()
    # torch recommends to switch the protection off, which would run the file's code.
    if text.startswith("Weights only load failed"):
        return "it is damaged, or holds objects other than tensors"
    return text.splitlines()[0].rstrip(".")[:limit] if text else type(error).__name__
