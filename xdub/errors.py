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
    except OSError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{setting}={path}: cannot be loaded ({reason}); give a folder that holds the model, or a hub name "
            "that this machine can reach"
        ) from error
