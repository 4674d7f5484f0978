"""`report.html` of a run: what was heard, what was made of it, and the figures, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from xdub.evaluate.targets import CEILINGS, ROWS, missed
from xdub.report.charts import Series, legend, line_chart, smooth
from xdub.report.page import chips, page, section, table
from xdub.report.strips import data_uri, mouth_zoom, pick_frames, png, strip

LABELS = {"source": "Source", "generator": "Generator", "editor": "Editor", "truth": "Ground truth"}
PHASE_NAMES = {
    "generator": "Generator: inpaints the masked lower face",
    "editor": "Editor, high noise: learns on the generator's pairs",
    "lip": "Lip expert (LoRA, middle noise)",
    "texture": "Texture expert (LoRA, low noise)",
}


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One dubbed clip as the report shows it. F frames of any size, the same for all rows."""

    name: str
    frames: Mapping[str, np.ndarray]
    """source, generator, editor, truth -> [F,H,W,3] uint8."""
    landmarks: np.ndarray
    """[F,68,2] px in these frames, of the source."""
    openings: Mapping[str, np.ndarray]
    """truth, old (true openings), generator, editor (read) -> [F]."""
    opening_corr: Mapping[str, float]
    """generator, editor -> correlation of this clip."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page."""

    summary: Mapping[str, Any]
    """As written to summary.json."""
    clips: Sequence[ClipView]
    losses: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """phase -> steps, training loss."""
    mlflow_command: str
    videos: Mapping[str, bytes] = field(default_factory=dict)
    """source, editor, truth -> mp4 bytes of the first clip, shown playing."""
    dubbed_name: str = "dubbed.mp4"


def build_report(data: ReportData) -> str:
    """The page as HTML text."""
    parts = [_header(data), _headline(data.summary)]
    if data.videos:
        parts.append(_videos(data))
    parts.append(_strips(data.clips))
    parts.append(_curves(data.clips))
    parts.append(_figures(data.summary))
    parts.append(_losses(data))
    parts.append(_resources(data.summary))
    parts.append(_mlflow(data.mlflow_command))
    parts.append(
        "<footer>Made by <code>xdub demo</code>. All clips on this page are rendered heads with identities, "
        "poses "
        "and speech that no training step has seen. Every figure is in <code>summary.json</code>.</footer>"
    )
    return page(f"X-Dub demo, seed {data.summary['seed']}", "\n".join(parts))


def _header(data: ReportData) -> str:
    s = data.summary
    facts = [
        ("seed", str(s["seed"])),
        ("start", "shipped weights" if s["warm_start"] else "from scratch"),
        ("time", duration(sum(s["seconds"].values()))),
        ("peak memory", f"{s['peak_gb']:.1f} GB"),
        ("machine", str(s["hardware"].get("name", ""))),
        ("xdub", str(s["versions"].get("xdub", ""))),
    ]
    note = (
        "Every phase of this run continued from the small weights that ship with the package, which were "
        "trained for "
        "hours on other rendered heads; the minutes spent here are a short continuation. "
        "<code>xdub demo --from-scratch</code> starts from nothing."
        if s["warm_start"]
        else "Every phase of this run started from random weights: what is seen here was learned in the "
        "minutes listed below."
    )
    return (
        '<header><p class="eyebrow">X-Dub demo</p><h1>New words on faces it has never seen</h1>'
        "<p>This machine rendered talking heads, trained a generator, let it make lip-altered pairs, "
        "trained an editor "
        f"on them in three phases, and dubbed held-out clips with other speech.</p>{chips(facts)}"
        f'<div class="callout"><p>{note}</p></div></header>'
    )


def _headline(s: Mapping[str, Any]) -> str:
    e, g = s["editor"], s["generator"]
    cells = [
        (f"{e['opening_corr']:.2f}", "lips follow the new speech", f"generator {g['opening_corr']:.2f}, "
         f"ceiling of the codec {s['codec']:.2f}"),
        (f"{e['leak_corr']:+.2f}", "leak of the old speech", "0 is none, 1 a copy of the source's lips"),
        (f"{e['lip_psnr']:.1f} dB", "lips against the truth", f"generator {g['lip_psnr']:.1f} dB"),
        (f"{e['outside_psnr']:.1f} dB", "everything else, kept",
         f"{e['raw_outside_psnr']:.1f} dB before paste-back"),
    ]  # fmt: skip
    cards = "".join(
        f'<div class="card kpi"><b>{value}</b><span>{escape(label)}</span><em>{escape(more)}</em></div>'
        for value, label, more in cells
    )
    return f'<section><div class="grid cols4">{cards}</div></section>'


def _videos(data: ReportData) -> str:
    names = {
        "source": ("Source", "the video as it was, with its own speech"),
        "editor": ("Dubbed", f"by the editor, with the new speech ({data.dubbed_name})"),
        "truth": ("Ground truth", "the same head rendered with the new speech"),
    }
    cells = "".join(
        f'<figure><video controls loop playsinline src="{data_uri(data.videos[key], "video/mp4")}">'
        f"</video><figcaption><b>{title}</b>, {escape(what)}</figcaption></figure>"
        for key, (title, what) in names.items()
        if key in data.videos
    )
    return section(
        "Watch it",
        "The first held-out clip, at its full size and with sound.",
        f'<div class="card"><div class="videos">{cells}</div></div>',
    )


def _strips(clips: Sequence[ClipView]) -> str:
    cards = []
    for clip in clips:
        at = pick_frames(clip.openings["truth"], 8)
        rows = [
            _film_row(
                key, LABELS[key], strip(frames[at], 132), f"{clip.name}, frames {', '.join(map(str, at))}"
            )
            for key, frames in clip.frames.items()
        ]
        rows.append('<div class="gap"></div>')
        for key, frames in clip.frames.items():
            zoom = mouth_zoom(frames[at], clip.landmarks[at], (90, 132))
            rows.append(_film_row(key, LABELS[key], strip(zoom, 132), f"{clip.name}, mouths"))
        cards.append(
            f'<div class="card"><h3>{escape(clip.name)}</h3><div class="film">{"".join(rows)}</div></div>'
        )
    return section(
        "Frame by frame",
        "Columns are moments of one clip, most open and most closed ones preferred; below, the mouths of "
        "the same "
        "frames enlarged. Dubbed rows should have the ground truth's lips and the source's everything else.",
        "".join(cards),
    )


def _film_row(key: str, label: str, image: np.ndarray, what: str) -> str:
    alt = escape(f"{label}: {what}")
    picture = f'<img alt="{alt}" src="{data_uri(png(image))}">'
    return f'<div class="row"><span class="{key}">{label}</span>{picture}</div>'


def _curves(clips: Sequence[ClipView]) -> str:
    names = {
        "old": "old speech (source)",
        "truth": "new speech (truth)",
        "generator": "generator",
        "editor": "editor",
    }
    keys = legend([Series(name=name, y=[], style=key) for key, name in names.items()])
    cards = []
    for clip in clips:
        lines = [
            Series(name=name, y=clip.openings[key], x=np.arange(len(clip.openings[key])) / 25, style=key)
            for key, name in names.items()
        ]
        r = ", ".join(f"{key} r = {value:.2f}" for key, value in clip.opening_corr.items())
        chart = line_chart(lines, x_label="seconds", y_label="mouth opening")
        cards.append(
            f'<div class="card"><h3>{escape(clip.name)}</h3>{chart}<p class="note">{escape(r)}</p></div>'
        )
    return section(
        "Do the lips move when the speech does?",
        "Mouth opening (inner-lip gap in eye distances) over time, read from the finished videos by a small "
        "network, "
        "beside the truth of the new and of the old speech.",
        f'<div class="grid cols2">{"".join(cards)}</div>{keys}',
    )


def _figures(s: Mapping[str, Any]) -> str:
    rows = []
    for row in ROWS:
        cells = [f"{escape(row.label)}<small>{escape(row.meaning)}</small>"]
        for model in ("generator", "editor"):
            value = s[model][row.key]
            text = f"{value:.{row.digits}f}{row.unit}"
            mark = "" if row.met is None else ("good" if row.met(value, model, s) else "bad")
            cells.append(f'<span class="{mark}">{text}</span>')
        rows.append([*cells, escape(row.goal)])
    for key, (label, goal) in CEILINGS.items():
        mark = "good" if s[key] >= goal else "bad"
        cell = f'<span class="{mark}">{s[key]:.3f}</span>'
        rows.append([f"{label}<small>ceiling of the first row</small>", cell, cell, f"≥ {goal}"])
    rows[1][0] += _raw_leak(s)
    lines = missed(s)
    verdict = (
        '<p class="note">All goals are met.</p>'
        if not lines
        else f'<p class="note"><span class="bad">Not met:</span> {escape("; ".join(lines))}.</p>'
    )
    count = s.get("evaluated", {})
    lead = "On held-out heads. The editor sees the whole face, the generator a masked one."
    if count:
        lead += f" {count['clips']} clips, {count['frames']} frames."
    body = table(["", "Generator", "Editor", "Goal"], rows) + verdict
    return section("The figures", lead, f'<div class="card">{body}</div>')


def _raw_leak(s: Mapping[str, Any]) -> str:
    """The plain correlation with the old speech, and what a perfect dub of these clips would show."""
    details = s.get("details", {})
    if "editor" not in details:
        return ""
    g, e = (details[model]["leak_corr"] for model in ("generator", "editor"))
    told = f"plain correlation {g['raw']:+.3f} and {e['raw']:+.3f}; the two true speeches have {e['chance']:+.3f}"
    return f"<small>{told} by chance</small>"


def _losses(data: ReportData) -> str:
    cards = []
    for phase, (steps, values) in data.losses.items():
        lines = [
            Series(name="", y=values, x=steps, style="faint"),
            Series(name="loss", y=smooth(values), x=steps, style="editor"),
        ]
        title = escape(PHASE_NAMES.get(phase, phase))
        chart = line_chart(lines, x_label="step", y_label="loss", height=180)
        cards.append(f'<div class="card"><h3>{title}</h3>{chart}</div>')
    lead = "Training loss of each phase in the order they ran: every step, and the running mean."
    if data.summary["warm_start"]:
        lead += " They start low because the weights were warm."
    return section("Training", lead, f'<div class="grid cols2">{"".join(cards)}</div>')


def _resources(s: Mapping[str, Any]) -> str:
    longest = max(s["seconds"].values(), default=0) or 1
    bars = "".join(
        f'<span>{escape(name)}</span><i style="width:{100 * value / longest:.1f}%"></i>'
        f'<span class="n">{duration(value)}</span>'
        for name, value in s["seconds"].items()
    )
    facts = {
        **{k: v for k, v in s["hardware"].items()},
        "peak memory": f"{s['peak_gb']:.2f} GB, all processes",
    }
    about = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    versions = ", ".join(f"{name} {version}" for name, version in s["versions"].items())
    return section(
        "Where the time went",
        f"{duration(sum(s['seconds'].values()))} in all, stages in the order they ran.",
        f'<div class="grid cols2"><div class="card"><div class="bars">{bars}</div></div>'
        f'<div class="card"><dl>{about}<dt>versions</dt><dd>{escape(versions)}</dd></dl></div></div>',
    )


def _mlflow(command: str) -> str:
    return section(
        "Compare the runs in MLflow",
        "Parameters, losses by noise band and throughput of every phase are in MLflow. This opens them side "
        "by side.",
        f'<div class="card"><pre>{escape(command)}</pre></div>',
    )


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 1 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
