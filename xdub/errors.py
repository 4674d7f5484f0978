"""What a user can cause, and how we say it."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: the message names the offending value and the fix. The CLI prints one line and exits with 2."""
