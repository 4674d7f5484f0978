"""Pictures in rows and columns with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL, GAP, MARGIN = 176, 6, 16
TEXT, FAINT, PAPER = (28, 31, 36), (110, 117, 126), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Column:
    """Pictures under one another, uint8 [H, W, 3]; None leaves a cell empty."""

    title: str
    cells: Sequence[np.ndarray | None]


def contact_sheet(columns: Sequence[Column], rows: Sequence[str], title: str) -> np.ndarray:
    """Draw a sheet, uint8 [H, W, 3], of squares of CELL px with row names at the left and column titles above."""
    small, large = ImageFont.load_default(13), ImageFont.load_default(16)
    left = MARGIN + 14 + max(round(large.getlength(name)) for name in rows)
    top = MARGIN + 52
    size = (
        max(left + len(columns) * (CELL + GAP), MARGIN + round(large.getlength(title))) - GAP + MARGIN,
        top + len(rows) * (CELL + GAP) - GAP + MARGIN,
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, TEXT, font=large)
    for number, name in enumerate(rows):
        draw.text((MARGIN, top + number * (CELL + GAP) + CELL // 2), name, TEXT, font=large, anchor="lm")
    for number, column in enumerate(columns):
        x = left + number * (CELL + GAP)
        draw.text((x + CELL // 2, top - 8), column.title, FAINT, font=small, anchor="ms")
        for row, cell in enumerate(column.cells):
            if cell is not None:
                picture = Image.fromarray(cell).resize((CELL, CELL), Image.Resampling.BICUBIC)
                sheet.paste(picture, (x, top + row * (CELL + GAP)))
    return np.asarray(sheet)
