"""`report.html` of a demo: its clips, its figures, its duration and its machine, in one file."""

from __future__ import annotations

from html import escape

from xdub.demo.page_clips import curves_section, strips_section, videos_section
from xdub.demo.page_figures import figures_section, headline, losses_section, resources_section
from xdub.demo.report_data import ReportData
from xdub.progress import duration
from xdub.report.page import chips, page, section


def build_report(data: ReportData) -> str:
    """Return the page as HTML."""
    parts = [_header(data), headline(data.summary)]
    if data.videos:
        parts.append(videos_section(data))
    parts.append(strips_section(data.clips))
    parts.append(curves_section(data.clips))
    parts.append(figures_section(data.summary))
    parts.append(losses_section(data))
    parts.append(resources_section(data.summary))
    parts.append(_mlflow(data.mlflow_command))
    parts.append(
        "<footer>Made by <code>xdub demo</code>. All clips on this page are rendered heads with identities, "
        "poses and speech that no training step has seen. Every figure is in <code>summary.json</code>.</footer>"
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
        "Every phase of this run continued from the small weights that ship with the package, which were trained "
        "for hours on other rendered heads; the minutes spent on this run are a short continuation. "
        "<code>xdub demo --from-scratch</code> starts from nothing."
        if s["warm_start"]
        else "Every phase of this run started from random weights: everything on this page was learned in the "
        "minutes listed below."
    )
    return (
        '<header><p class="eyebrow">X-Dub demo</p><h1>New words on faces that the model has never seen</h1>'
        "<p>This machine rendered talking heads, trained a generator, generated lip-altered pairs with it, trained "
        "an editor on the pairs in three phases, and dubbed held-out clips with other speech."
        f'</p>{chips(facts)}<div class="callout"><p>{note}</p></div></header>'
    )


def _mlflow(command: str) -> str:
    return section(
        "Compare the runs in MLflow",
        "Parameters, losses by noise band and throughput of every phase are in MLflow. The command opens them side "
        "by side.",
        f'<div class="card"><pre>{escape(command)}</pre></div>',
    )
