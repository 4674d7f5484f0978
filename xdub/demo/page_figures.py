"""Parts of the report that show numbers: headline, table of metrics, training losses, time and machine."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from xdub.demo.report_data import LABELS, ReportData
from xdub.evaluate.metric import Metric
from xdub.evaluate.targets import CEILINGS, GOALS, MODELS, measured, missed
from xdub.progress import duration
from xdub.report.charts import Series, line_chart, smooth
from xdub.report.page import section, table

PHASE_NAMES = {
    "generator": "Generator: inpaints the masked lower face",
    "editor": "Editor, high noise: learns on the generator's pairs",
    "lip": "Lip expert (LoRA, middle noise)",
    "texture": "Texture expert (LoRA, low noise)",
}
"""Phase -> title of its loss curve."""


def headline(summary: Mapping[str, Any]) -> str:
    """Show the editor's value of every metric that has a goal as a card, with the generator's value and the goal."""
    cards = []
    for metric in measured(summary):
        if goal := GOALS.get(metric.name):
            value = metric.text(summary["editor"][metric.name])
            generator = metric.text(summary["generator"][metric.name])
            cards.append(
                f'<div class="card kpi"><b>{value}</b><span>{escape(metric.label)}</span>'
                f"<em>generator {generator}<br>goal: {escape(goal.text)}</em></div>"
            )
    return f'<section><div class="grid cols4">{"".join(cards)}</div></section>'


def figures_section(summary: Mapping[str, Any]) -> str:
    """Show every metric of both models with its goal, the ceilings, and the goals that were missed."""
    rows = [_metric_row(metric, summary) for metric in measured(summary)]
    for key, (label, goal) in CEILINGS.items():
        mark = "good" if summary[key] >= goal else "bad"
        cell = f'<span class="{mark}">{summary[key]:.3f}</span>'
        rows.append([f"{label}<small>ceiling of the first row</small>", cell, cell, f"≥ {goal}"])
    lines = missed(summary)
    verdict = (
        '<p class="note">All goals are met.</p>'
        if not lines
        else f'<p class="note"><span class="bad">Not met:</span> {escape("; ".join(lines))}.</p>'
    )
    lead = "On held-out heads. The editor sees the whole face, the generator a masked one."
    if count := summary.get("evaluated"):
        lead += f" {count['clips']} clips, {count['frames']} frames."
    body = table(["", *(LABELS[model] for model in MODELS), "Goal"], rows) + verdict
    return section("The figures", lead, f'<div class="card">{body}</div>')


def _metric_row(metric: Metric[Any], summary: Mapping[str, Any]) -> list[str]:
    """Return the cells of one metric: label and meaning, the value of each model, the goal."""
    title = f"{escape(metric.label)}<small>{escape(metric.meaning)}</small>"
    details: dict[str, Mapping[str, Any]] = {m: summary.get("details", {}).get(m, {}) for m in MODELS}
    if metric.remark is not None and all(details.values()):
        title += f"<small>{escape(metric.remark(details))}</small>"
    goal = GOALS.get(metric.name)
    cells = []
    for model in MODELS:
        value = summary[model][metric.name]
        mark = "" if goal is None else ("good" if goal.met(value, model, summary) else "bad")
        cells.append(f'<span class="{mark}">{metric.text(value)}</span>')
    return [title, *cells, escape(goal.text) if goal else ""]


def losses_section(data: ReportData) -> str:
    """Draw the training loss of every phase."""
    cards = []
    for phase, (steps, values) in data.losses.items():
        lines = [
            Series(name="", y=values, x=steps, faint=True),
            Series(name="loss", y=smooth(values), x=steps),
        ]
        title = escape(PHASE_NAMES.get(phase, phase))
        chart = line_chart(f"loss-{phase}", lines, x_label="step", y_label="loss", size=(6.0, 2.2))
        cards.append(f'<div class="card"><h3>{title}</h3>{chart}</div>')
    lead = "Training loss of each phase in the order they ran: every step, and the running mean."
    if data.summary["warm_start"]:
        lead += " They start low because training continued from trained weights."
    return section("Training", lead, f'<div class="grid cols2">{"".join(cards)}</div>')


def resources_section(summary: Mapping[str, Any]) -> str:
    """Show the time of every stage, the machine and the versions."""
    longest = max(summary["seconds"].values(), default=0) or 1
    bars = "".join(
        f'<span>{escape(name)}</span><i style="width:{100 * value / longest:.1f}%"></i>'
        f'<span class="n">{duration(value)}</span>'
        for name, value in summary["seconds"].items()
    )
    facts = summary["hardware"] | {"peak memory": f"{summary['peak_gb']:.2f} GB, all processes"}
    about = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return section(
        "Where the time went",
        f"{duration(sum(summary['seconds'].values()))} in all, stages in the order they ran.",
        f'<div class="grid cols2"><div class="card"><div class="bars">{bars}</div></div>'
        f'<div class="card"><dl>{about}<dt>versions</dt><dd>{escape(versions)}</dd></dl></div></div>',
    )
