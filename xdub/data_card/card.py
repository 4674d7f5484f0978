"""DIR/card.html: the card of a data set as one self-contained page."""

from __future__ import annotations

from html import escape
from pathlib import Path

from xdub.data.ledger import Ledger
from xdub.data.manifest import read_manifest
from xdub.data.shards import speakers_of
from xdub.data_card.charts import checks_chart, set_chart
from xdub.data_card.facts import LedgerFacts, SetFacts, read_ledger, read_set
from xdub.data_card.sheet import draw_sheet
from xdub.files.storage import Location, locate
from xdub.report.page import chips, page, section, table
from xdub.report.strips import data_uri

CARD = "card.html"
"""File name of the card in a data set."""


def write_card(folder: str | Path | Location, out: str | Path | Location | None = None) -> Location:
    """Write the card of the data set DIR to ``out``, by default DIR/card.html; return its place.

    Raises:
        UserError: DIR is not a data set, or its ledger is damaged.
    """
    location = locate(folder)
    manifest = read_manifest(location)
    facts = read_set(manifest, speakers_of(manifest))
    ledger = read_ledger(Ledger(location).rows())
    target = location / CARD if out is None else locate(out)
    html = build_card(location.name, facts, ledger, draw_sheet(manifest))
    target.write_bytes(html.encode())
    return target


def build_card(name: str, facts: SetFacts, ledger: LedgerFacts, sheet: bytes | None) -> str:
    """Return the page as HTML; ``sheet`` is a JPEG file."""
    parts = [_header(name, facts, ledger), section("Clips", "Lengths and speakers.", _card(set_chart(facts)))]
    if sheet is not None:
        picture = f'<img style="width:100%" alt="frames with masks" src="{data_uri(sheet, "image/jpeg")}">'
        lead = "Evenly drawn clips: the first frame, and those with the least and the most open mouth."
        parts.append(section("Masks", lead, _card(picture)))
    lead = (
        "Values of all clips that reached a check; blue clips were kept, orange ones rejected by any check."
    )
    parts.append(section("Checks", lead, _card(checks_chart(ledger.checks))))
    parts.append(section("Rejected and failed", "Rows of the ledger by reason.", _card(_reasons(ledger))))
    lead = "Hours of workers, and of cores that worked, for an hour of footage."
    parts.append(section("Cost", lead, _card(_costs(ledger))))
    parts.append("<footer>Written by <code>xdub data card</code>.</footer>")
    return page(f"Data set {name}", "\n".join(parts))


def _card(content: str) -> str:
    return f'<div class="card">{content}</div>'


def _header(name: str, facts: SetFacts, ledger: LedgerFacts) -> str:
    items = [
        ("clips", f"{facts.clips:,}"),
        ("speakers", f"{facts.speakers:,}"),
        ("shards", f"{facts.shards:,}"),
        ("size", size_text(facts.bytes)),
        ("ledger", str(ledger.counts)),
    ]
    hours = f"{facts.hours:.1f} hours" if facts.hours >= 1 else f"{60 * facts.hours:.1f} minutes"
    return (
        f'<header><p class="eyebrow">X-Dub data set</p><h1>{escape(name)}: {hours} of {escape(facts.kind)}</h1>'
        f"{chips(items)}</header>"
    )


def size_text(size: int) -> str:
    """Return a number of bytes in words."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _reasons(ledger: LedgerFacts) -> str:
    """Return the number of rows and a few messages of each reason, most frequent first."""
    counts = {
        name.removeprefix("rejected:"): count
        for name, count in ledger.counts.items()
        if name.startswith("rejected:")
    }
    if ledger.counts["failed"]:
        counts["failed"] = ledger.counts["failed"]
    if not counts:
        return '<p class="note">Every input was kept.</p>'
    total = max(1, sum(ledger.counts[status] for status in ("kept", "rejected", "failed")))
    rows = [
        [
            escape(name)
            + "".join(f"<small>{escape(text)}</small>" for text in ledger.examples.get(name, ())),
            f"{counts[name]:,}",
            f"{counts[name] / total:.1%}",
        ]
        for name in sorted(counts, key=lambda name: -counts[name])
    ]
    return table(("check", "rows", "share"), rows)


def _costs(ledger: LedgerFacts) -> str:
    """Return the hours of each stage for an hour of footage."""
    if not ledger.footage:
        return '<p class="note">No stage was recorded: rendered clips and sets of earlier versions have none.</p>'
    stages = sorted(ledger.seconds, key=lambda stage: -ledger.seconds[stage])
    rows = [
        [
            escape(stage),
            f"{ledger.seconds[stage] / ledger.footage:.3f}",
            f"{ledger.cores.get(stage, 0.0) / ledger.footage:.3f}",
        ]
        for stage in stages
    ]
    both = [sum(ledger.seconds.values()), sum(ledger.cores.values())]
    rows.append(["<b>all</b>", *(f"<b>{value / ledger.footage:.3f}</b>" for value in both)])
    note = f'<p class="note">Measured on {ledger.footage / 3600:.2f} hours of footage.</p>'
    return table(("stage", "worker hours", "core hours"), rows) + note
