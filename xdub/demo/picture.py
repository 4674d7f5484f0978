"""Draw the README's picture from a finished demo: source, dubbed and true frames, and the curve of the lips.

python -m xdub.demo.picture --demo demo --out docs/images/demo.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xdub.demo.assess import close_up
from xdub.demo.cases import case_folders, load_case
from xdub.demo.layout import dubbed_file
from xdub.errors import UserError
from xdub.evaluate.metrics import pearson
from xdub.geometry import FPS
from xdub.media import read_frames
from xdub.report.charts import Series, chart_style, draw_lines, new_figure, save_png
from xdub.report.palette import LIGHT, ROLES
from xdub.report.strips import mouth_zoom, pick_frames, strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, CELL = 8, 116
"""Frames of a row, and px of each."""
GAP, LEFT, RIGHT = 8, 100, 10
"""px above each row, before the rows (for their names) and after them."""
PLOT, PLOT_BOTTOM, PLOT_HEIGHT = 206, 48, 130
"""Height in px of the curves' part below each block, of the space below its axes, and of its axes."""
NAMES = {"source": "source", "editor": "dubbed", "truth": "truth"}
"""Key of a video -> its name in the picture."""


def draw(demo: Path, out: Path, clips: Sequence[int]) -> None:
    """Write a PNG with one block a clip; ``clips`` are numbers in OUT/heldout.

    Raises:
        UserError: the demo is not finished.
    """
    if not (demo / "summary.json").is_file():
        raise UserError(f"{demo} is not a finished demo: it has no summary.json")
    folders = case_folders(demo / "heldout")
    with np.load(demo / "evaluation" / "arrays.npz") as data:
        arrays = dict(data)
    blocks = [_strips(demo, folders[n], arrays[f"{n}_new"]) for n in clips]
    heights = [len(image) + GAP for block in blocks for _, image in block]
    width = blocks[0][0][1].shape[1]
    full, total = width + LEFT + RIGHT, sum(heights) + len(blocks) * PLOT
    left, share = LEFT / full, width / full
    with chart_style():
        figure = new_figure(full / 100, total / 100)
        figure.set_layout_engine("none")
        y = total
        for number, block in zip(clips, blocks, strict=True):
            for name, image in block:
                y -= len(image) + GAP
                axes = figure.add_axes((left, y / total, share, len(image) / total))
                axes.imshow(image, aspect="auto", interpolation="nearest")
                axes.set_axis_off()
                figure.text(
                    (LEFT - GAP) / full,
                    (y + len(image) / 2) / total,
                    NAMES[name],
                    ha="right",
                    va="center",
                    fontsize=13,
                    color=LIGHT[ROLES[name]],
                    weight="bold",
                )
            y -= PLOT
            axes = figure.add_axes((left, (y + PLOT_BOTTOM) / total, share, PLOT_HEIGHT / total))
            _curves(axes, arrays, number)
        save_png(figure, out)


def _strips(demo: Path, folder: Path, opening: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return (name, picture) of each row of a clip: close-ups first, then the mouths of the same frames."""
    clip = load_case(folder, folder.name)
    films = {"source": clip.source, "editor": read_frames(dubbed_file(demo, "editor", folder.name))}
    films["truth"] = clip.truth
    moments = pick_frames(opening, COLUMNS)
    x, y, side = close_up(clip)
    heads = [
        (name, strip(film[moments][:, y : y + side, x : x + side], CELL)) for name, film in films.items()
    ]
    size = (2 * CELL // 3, CELL)
    mouths = [
        (name, strip(mouth_zoom(film[moments], clip.landmarks[moments], size), CELL))
        for name, film in films.items()
    ]
    return heads + mouths


def _curves(axes: Axes, arrays: dict[str, np.ndarray], number: int) -> None:
    """Draw the openings of source, truth and dubbed video over time."""
    truth, old, read = (arrays[f"{number}_{key}"] for key in ("new", "old", "editor_read"))
    seconds = np.arange(len(truth)) / FPS
    dubbed = f"dubbed, read from the video: r = {pearson(read, truth):.2f}"
    lines = [
        Series(name="source: old speech", x=seconds, y=old, colour=ROLES["source"], dashed=True),
        Series(name="truth: new speech", x=seconds, y=truth, colour=ROLES["truth"]),
        Series(name=dubbed, x=seconds, y=read, colour=ROLES["editor"]),
    ]
    draw_lines(axes, lines, "seconds", "mouth opening")
    axes.set_xlim(0, seconds[-1])
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 0.97), fontsize=9)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m xdub.demo.picture", description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--clips", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.png"))
    args = parser.parse_args(arguments)
    draw(args.demo, args.out, args.clips)


if __name__ == "__main__":
    main()
