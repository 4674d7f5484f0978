"""The verb that shows masks to a person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdub.cli import options

if TYPE_CHECKING:
    from xdub.report.review_page import ReviewedClip

FRAMES = 6
"""Frames of a clip on the page."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this module to the command line."""
    app.command()(review)


def review(
    data: options.Clips,
    out: Annotated[Path, typer.Option(help="HTML file.", metavar="FILE")] = Path("review.html"),
    most: Annotated[int, typer.Option(min=1, help="Clips on the page, the most covered faces first.")] = 200,
    least: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest covered share of a face; 0 shows all clips.")
    ] = 0.005,
) -> None:
    """Write a page with the masks of clips, on which the keyboard accepts or rejects them.

    Save its decisions as DATA/decisions.jsonl: `xdub pairs` then leaves out rejected clips, and so does `xdub prepare
    --decisions` in another data set.

    Example: xdub review --data ds --out review.html
    """
    from xdub.data.decisions import DECISIONS
    from xdub.files.atomic import atomic_path
    from xdub.files.storage import locate
    from xdub.report.review_page import review_page

    clips, name = list(_clips(data, most, least)), str(locate(data))
    if not clips:
        typer.echo(f"{name}: no clip has {100 * least:g} % or more of its face covered; --least 0 shows all")
        return
    with atomic_path(out) as path:
        path.write_text(review_page(name, clips), "utf-8")
    typer.echo(f"{out}: {len(clips)} clips; save the decisions as {name}/{DECISIONS}")


def _clips(data: str, most: int, least: float) -> Iterator[ReviewedClip]:
    import numpy as np

    from xdub.data.ledger import Ledger
    from xdub.data.manifest import read_manifest
    from xdub.data.shards import ShardReader
    from xdub.report.review_page import ReviewedClip

    manifest = read_manifest(data)
    shares = {row.clip_id: row.scores.get("occluded", 0.0) for row in Ledger(data).rows() if row.clip_id}
    numbers = {clip_id: number for number, clip_id in enumerate(manifest.ids)}
    chosen = [(share, clip_id) for clip_id, share in shares.items() if share >= least and clip_id in numbers]
    reader = ShardReader(manifest)
    for share, clip_id in sorted(chosen, key=lambda item: (-item[0], item[1]))[:most]:
        clip = reader.clip(numbers[clip_id])
        index = np.linspace(0, clip.num_frames - 1, FRAMES).round().astype(int)
        yield ReviewedClip(
            clip_id=clip_id,
            source=clip.source,
            share=share,
            frames=clip.frames[index],
            face=clip.face_mask[index],
            objects=clip.occluder_mask[index],
        )
