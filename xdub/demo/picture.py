"""The README's picture out of a finished demo: source, dubbed and true frames, and the curve of the lips.

python -m xdub.demo.picture --demo demo --out docs/images/demo.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xdub.demo.assess import close_up
from xdub.demo.cases import case_folders, load_case
from xdub.errors import UserError
from xdub.evaluate.metrics import pearson
from xdub.files.atomic import atomic_path
from xdub.media import read_frames
from xdub.report.strips import mouth_zoom, pick_frames, strip

COLUMNS, CELL = 8, 116
PLOT = 206
"""px of the curves below each block, with legend and axis."""
NAMES = {"source": "source", "editor": "dubbed", "truth": "truth"}
COLOURS = {"source": "#8a94a3", "editor": "#3457d5", "truth": "#15181d"}


def draw(demo: Path, out: Path, clips: Sequence[int]) -> None:
    """PNG with one block a clip (numbers in OUT/heldout). UserError for a demo that is not finished."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not (demo / "summary.json").is_file():
        raise UserError(f"{demo} is not a finished demo: it has no summary.json")
    folders = case_folders(demo / "heldout")
    with np.load(demo / "evaluation" / "arrays.npz") as data:
        arrays = dict(data)
    blocks = [_strips(demo, folders[n], arrays[f"{n}_new"]) for n in clips]
    heights = [len(image) for block in blocks for _, image in block]
    width = blocks[0][0][1].shape[1]
    total = sum(heights) + 8 * len(heights) + len(blocks) * PLOT
    figure = Figure(figsize=((width + 110) / 100, total / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    y = total
    for number, block in zip(clips, blocks, strict=True):
        for name, image in block:
            y -= len(image) + 8
            place = [100 / (width + 110), y / total, width / (width + 110), len(image) / total]
            axes = figure.add_axes(place)
            axes.imshow(image, aspect="auto", interpolation="nearest")
            axes.set_axis_off()
            figure.text(
                90 / (width + 110), (y + len(image) / 2) / total, NAMES[name],
                ha="right", va="center", fontsize=13, color=COLOURS[name], weight="bold",
            )  # fmt: skip
        y -= PLOT
        axes = figure.add_axes([100 / (width + 110), (y + 48) / total, width / (width + 110), 130 / total])
        _curves(axes, arrays, number)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png")


def _strips(demo: Path, folder: Path, opening: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(row, picture) of a clip: close-ups first, then the mouths of the same frames."""
    clip = load_case(folder, folder.name)
    films = {"source": clip.source, "editor": read_frames(demo / "dubbed" / "editor" / f"{folder.name}.mp4")}
    films["truth"] = clip.truth
    at = pick_frames(opening, COLUMNS)
    x, y, side = close_up(clip)
    heads = [(name, strip(film[at][:, y : y + side, x : x + side], CELL)) for name, film in films.items()]
    mouths = [
        (name, strip(mouth_zoom(film[at], clip.landmarks[at], (2 * CELL // 3, CELL)), CELL))
        for name, film in films.items()
    ]
    return heads + mouths


def _curves(axes: Any, arrays: dict[str, np.ndarray], number: int) -> None:
    truth, old, read = (arrays[f"{number}_{key}"] for key in ("new", "old", "editor_read"))
    seconds = np.arange(len(truth)) / 25
    axes.plot(seconds, old, "--", color=COLOURS["source"], linewidth=1.2, label="source: old speech")
    axes.plot(seconds, truth, color=COLOURS["truth"], linewidth=2.2, label="truth: new speech")
    label = f"dubbed, read from the video: r = {pearson(read, truth):.2f}"
    axes.plot(seconds, read, color=COLOURS["editor"], linewidth=1.8, label=label)
    axes.set(xlim=(0, seconds[-1]), xlabel="seconds", ylabel="mouth opening")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.97))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m xdub.demo.picture", description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--clips", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.png"))
    told = parser.parse_args(arguments)
    draw(told.demo, told.out, told.clips)


if __name__ == "__main__":
    main()
