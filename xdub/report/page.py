"""The HTML shell of our reports: one self-contained page without scripts or outside assets, dark or light."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from xdub.report.palette import css_variables

STYLE = (
    css_variables()
    + """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 72px; }
header h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 6px; }
header p { margin: 0; color: var(--soft); max-width: 70ch; }
.eyebrow { font-size: 12px; font-weight: 600; letter-spacing: .09em; text-transform: uppercase;
  color: var(--accent); margin: 0 0 10px; }
.chips { display: flex; flex-wrap: wrap; gap: 6px; margin: 16px 0 0; padding: 0; list-style: none; }
.chips li { font-size: 12.5px; padding: 3px 10px; border: 1px solid var(--line); border-radius: 99px;
  background: var(--card); color: var(--soft); }
.chips li b { color: var(--ink); font-weight: 600; }
section { margin-top: 44px; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 0 0 8px; }
.lead { margin: 0 0 16px; color: var(--soft); max-width: 78ch; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px; }
.card + .card { margin-top: 16px; }
.grid { display: grid; gap: 16px; }
.cols2 { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.cols2 .card + .card, .cols4 .card + .card { margin-top: 0; }
.cols4 { grid-template-columns: repeat(auto-fit, minmax(min(100%, 210px), 1fr)); }
.kpi b { display: block; font-size: 32px; line-height: 1.15; letter-spacing: -.02em; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.kpi span { color: var(--soft); font-size: 13.5px; }
.kpi em { font-style: normal; display: block; font-size: 12.5px; color: var(--soft); margin-top: 8px;
  border-top: 1px solid var(--line); padding-top: 8px; }
.note { color: var(--soft); font-size: 13.5px; margin: 10px 0 0; }
.callout { background: var(--wash); border: 1px solid var(--line); border-left: 3px solid var(--accent);
  border-radius: 8px; padding: 12px 16px; margin-top: 20px; max-width: 100%; }
.callout p { margin: 0; color: var(--ink); }
.videos { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 200px), 1fr)); }
figure { margin: 0; }
figcaption { font-size: 13px; color: var(--soft); margin-top: 6px; }
figcaption b { color: var(--ink); }
video { width: 100%; display: block; border-radius: 8px; background: #000; }
.film { overflow-x: auto; }
.film .row { display: grid; grid-template-columns: 92px minmax(560px, 1fr); align-items: center; gap: 12px; }
.film .row + .row { margin-top: 4px; }
.film .gap { height: 14px; }
.film .row > span { font-size: 13px; font-weight: 600; position: sticky; left: 0; background: var(--card);
  height: 100%; display: flex; align-items: center; }
.film .row > span.editor { color: var(--accent); } .film .row > span.generator { color: var(--generator); }
.film img { width: 100%; display: block; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 9px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: 12.5px; font-weight: 600; color: var(--soft); white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
td small { display: block; color: var(--soft); font-size: 12.5px; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
svg.chart { width: 100%; height: auto; display: block; overflow: visible; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 8px; font-size: 13px;
  color: var(--soft); }
.key i { display: inline-block; width: 18px; height: 0; border-top: 3px solid var(--k); border-radius: 2px;
  vertical-align: middle; margin-right: 6px; }
.key.dashed i { border-top-style: dashed; border-top-width: 2px; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 7px 14px; align-items: center;
  font-size: 14px; }
.bars i { display: block; height: 12px; border-radius: 3px; background: var(--accent); min-width: 2px; }
.bars span:last-child, .bars .n { color: var(--soft); font-variant-numeric: tabular-nums; text-align: right; }
pre { background: var(--code); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px;
  margin: 8px 0; overflow-x: auto; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 0; font-size: 14px; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
footer { margin-top: 48px; color: var(--soft); font-size: 13px; border-top: 1px solid var(--line);
  padding-top: 16px; }
@media (max-width: 560px) { main { padding: 24px 14px 48px; } .card { padding: 14px; }
  .film .row { grid-template-columns: 72px minmax(520px, 1fr); } dl { grid-template-columns: 1fr; } }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""
)
"""Style sheet of every page."""


def page(title: str, body: str) -> str:
    """Return the whole HTML document; ``body`` is HTML, ``title`` plain text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def section(title: str, lead: str, content: str) -> str:
    """Return a titled part of a page; ``lead`` is one plain sentence or two, ``content`` is HTML."""
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{content}</section>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of cells that are HTML already; every column but the first is numeric."""
    top = "".join(f"<th{' class=n' if i else ''}>{cell}</th>" for i, cell in enumerate(head))
    lines = (
        "<tr>" + "".join(f"<td{' class=n' if i else ''}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    body = f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def chips(items: Sequence[tuple[str, str]]) -> str:
    """Return a row of small facts (name, value) for the place below a page's title."""
    cells = "".join(f"<li>{escape(name)} <b>{escape(value)}</b></li>" for name, value in items)
    return f'<ul class="chips">{cells}</ul>'
