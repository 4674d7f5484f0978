"""Colours of pages, charts and pictures: one palette for light pages and one for dark pages."""

from __future__ import annotations

LIGHT = {
    "bg": "#f6f7f9",
    "card": "#ffffff",
    "ink": "#15181d",
    "soft": "#5c6572",
    "line": "#e2e6eb",
    "accent": "#3457d5",
    "generator": "#d9730d",
    "old": "#9aa3af",
    "good": "#16794a",
    "bad": "#b42318",
    "c2": "#0f8a7e",
    "c3": "#9333a8",
    "c4": "#b8860b",
    "c5": "#64748b",
    "wash": "#eef1fb",
    "code": "#f0f2f5",
}
"""Name -> colour on a light page. Every name is a CSS variable of the pages."""

DARK = {
    "bg": "#0f1216",
    "card": "#171b21",
    "ink": "#e8ebef",
    "soft": "#99a3b0",
    "line": "#2a3038",
    "accent": "#8aa4ff",
    "generator": "#f5a04c",
    "old": "#6b7480",
    "good": "#4ac38a",
    "bad": "#ff8a7a",
    "c2": "#4fd1c5",
    "c3": "#d58be6",
    "c4": "#e6c35c",
    "c5": "#94a3b8",
    "wash": "#1b2233",
    "code": "#1f252d",
}
"""Name -> colour on a dark page."""

ACCENT = LIGHT["accent"]
"""Main colour: of the editor, and of the subject of a picture."""
SECOND = LIGHT["generator"]
"""Colour of the generator, and of the second thing in a picture."""
INK, SOFT, FAINT = LIGHT["ink"], LIGHT["soft"], LIGHT["old"]
"""Colours of text and of the truth (INK), of axes and captions (SOFT), and of secondary elements (FAINT)."""

ROLES = {"source": "old", "old": "old", "truth": "ink", "generator": "generator", "editor": "accent"}
"""Name of a video or curve -> name of its colour."""
SERIES = ("accent", "generator", "c2", "c3", "c4", "c5")
"""Names of the colours of runs side by side, in order."""


def css_variables() -> str:
    """Return the CSS that defines both palettes as variables; the reader's preference decides which one applies."""
    light, dark = (
        "".join(f"--{name}:{colour};" for name, colour in palette.items()) for palette in (LIGHT, DARK)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )
