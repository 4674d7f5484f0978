"""Parts of the report that show clips: playing videos, film strips, and the mouth's opening over time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from xdub.demo.report_data import LABELS, ClipView, ReportData
from xdub.geometry import FPS
from xdub.report.charts import Series, legend, line_chart
from xdub.report.page import section
from xdub.report.palette import ROLES
from xdub.report.strips import data_uri, mouth_zoom, pick_frames, png, strip

COLUMNS, CELL, MOUTH = 8, 132, (90, 132)
"""Frames of a strip, px of each, and (height, width) in px of a mouth."""
CURVES = {
    "old": "old speech (source)",
    "truth": "new speech (truth)",
    "generator": "generator",
    "editor": "editor",
}
"""Key of a mouth opening -> its name in the legend; later curves are drawn over earlier ones."""


def videos_section(data: ReportData) -> str:
    """Show the first clip playing: source, dubbed and true video."""
    names = {
        "source": ("Source", "the video before dubbing, with its own speech"),
        "editor": ("Dubbed", f"by the editor, with the new speech ({data.dubbed_name})"),
        "truth": ("Ground truth", "the same head rendered with the new speech"),
    }
    cells = "".join(
        f'<figure><video controls loop playsinline src="{data_uri(data.videos[key], "video/mp4")}">'
        f"</video><figcaption><b>{title}</b>, {escape(caption)}</figcaption></figure>"
        for key, (title, caption) in names.items()
        if key in data.videos
    )
    return section(
        "The first clip",
        "This held-out clip plays at its full size and with sound.",
        f'<div class="card"><div class="videos">{cells}</div></div>',
    )


def strips_section(clips: Sequence[ClipView]) -> str:
    """Show a few frames of every clip and version, and below them their mouths enlarged."""
    cards = []
    for clip in clips:
        moments = pick_frames(clip.openings["truth"], COLUMNS)
        numbers = ", ".join(map(str, moments))
        rows = [
            _film_row(key, strip(frames[moments], CELL), f"{clip.name}, frames {numbers}")
            for key, frames in clip.frames.items()
        ]
        rows.append('<div class="gap"></div>')
        for key, frames in clip.frames.items():
            zoom = mouth_zoom(frames[moments], clip.landmarks[moments], MOUTH)
            rows.append(_film_row(key, strip(zoom, CELL), f"{clip.name}, mouths"))
        cards.append(
            f'<div class="card"><h3>{escape(clip.name)}</h3><div class="film">{"".join(rows)}</div></div>'
        )
    return section(
        "Frame by frame",
        "Columns are moments of one clip; the most open and most closed mouths are preferred. The rows below "
        "enlarge the mouths of the same frames. Dubbed rows should show the lips of the ground truth and the rest of "
        "the source.",
        "".join(cards),
    )


def _film_row(key: str, image: np.ndarray, caption: str) -> str:
    alt = escape(f"{LABELS[key]}: {caption}")
    picture = f'<img alt="{alt}" src="{data_uri(png(image))}">'
    return f'<div class="row"><span class="{key}">{LABELS[key]}</span>{picture}</div>'


def curves_section(clips: Sequence[ClipView]) -> str:
    """Draw the mouth's opening over time for every clip: old speech, new speech, and both models."""
    cards = []
    for number, clip in enumerate(clips, start=1):
        lines = _curves(clip)
        r = ", ".join(f"{key} r = {value:.2f}" for key, value in clip.correlations.items())
        chart = line_chart(f"opening{number}", lines, x_label="seconds", y_label="mouth opening")
        cards.append(
            f'<div class="card"><h3>{escape(clip.name)}</h3>{chart}<p class="note">{escape(r)}</p></div>'
        )
    keys = legend(_curves(clips[0])) if clips else ""
    return section(
        "Do the lips move when the speech does?",
        "Mouth opening (inner-lip gap in eye distances) over time, read from the finished videos by a small network, "
        "beside the truth of the new and of the old speech.",
        f'<div class="grid cols2">{"".join(cards)}</div>{keys}',
    )


def _curves(clip: ClipView) -> list[Series]:
    return [
        Series(
            name=name,
            y=clip.openings[key],
            x=np.arange(len(clip.openings[key])) / FPS,
            colour=ROLES[key],
            dashed=key == "old",
        )
        for key, name in CURVES.items()
    ]
