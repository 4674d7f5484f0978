"""Export of trained weights in the forms that other software loads, with a model card, and their upload to a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdub.export.export import FORMS, Form, export_weights
    from xdub.export.push import push_folder

__all__ = ["FORMS", "Form", "export_weights", "push_folder"]


def __getattr__(name: str) -> Any:
    """Import the functions when they are first used, because they load torch."""
    if name == "push_folder":
        from xdub.export.push import push_folder

        return push_folder
    if name in __all__:
        from xdub.export import export

        return getattr(export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
