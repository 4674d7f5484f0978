"""Consent to the licence of a published model, before a verb uses the model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from xdub.config import Recipe


def agree(model: str | Path | None, accepted: Sequence[str] | None) -> None:
    """Show the licence of a published model and request consent, unless the user has consented before.

    Without a terminal at stdin and stderr there is no question. The licences of the names in ``accepted`` are recorded
    as accepted. Other models have no licence to accept.

    Raises:
        UserError: an accepted name is not that of a published model, or there is no consent.
    """
    from xdub.errors import UserError
    from xdub.model.licences import accept, licence_text
    from xdub.model.published import EDITORS, published_folder

    for name in accepted or ():
        if name not in (names := [editor.name for editor in EDITORS]):
            raise UserError(f"--accept-licence {name}: choose one of {', '.join(names)}")
        typer.echo(licence_text(name), err=True)
        accept(name)
    published = None if model is None else published_folder(model)
    if published is None:
        return
    _request(published.editor.name)


def agree_to_base(recipe: Recipe) -> None:
    """Request consent as `agree` does, where the open weights of a recipe are those of a published editor.

    Raise UserError if there is no consent.
    """
    from xdub.model.licences import is_accepted, required_licences

    names = required_licences(recipe)
    if names and not any(map(is_accepted, names)):
        _request(names[0])


def _request(name: str) -> None:
    """Request consent to the licence of a published model at a terminal. Raise UserError if there is none."""
    from xdub.model.licences import accept, is_accepted, licence_text, require_licence

    if not is_accepted(name) and sys.stdin.isatty() and sys.stderr.isatty():
        typer.echo(licence_text(name), err=True)
        if typer.confirm("Accept this licence?", err=True):
            accept(name)
    require_licence(name)
