"""What a user can cause, and how we say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input: the message names the offending value and the fix. The CLI prints one line and exits with 2."""


@contextmanager
def loading_pretrained(setting: str, path: object) -> Iterator[None]:
    """Around `from_pretrained`: what the libraries raise for a wrong folder or hub name becomes a UserError."""
    try:
        yield
    except OSError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{setting}={path}: cannot be loaded ({reason}); give a folder that holds the model, or a hub name "
            "that this machine can reach"
        ) from error
