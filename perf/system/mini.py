"""`python -m perf mini`: recipes `mini` and `mini-wan` from video files to a scored dub, with seconds of every stage.

The journey runs the commands of a user in a folder of its own: `xdub weights mini`, `prepare`, `bootstrap` (Ray Train,
two workers, ZeRO-2, bf16), `dub` and `eval score`. The second recipe has the codec of Wan 2.2 and open weights that
every phase tunes by an adapter; it trains fewer steps.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.environment import environment

RECIPES = {"mini": (), "mini-wan": ("train.steps=2",)}
"""Recipe -> settings of its journey."""
XDUB = "from xdub.cli import main; main()"
"""Python that runs the command `xdub`, whose script need not be installed."""
STAGE = re.compile(r"\d+/\d+ (.+): done in (?:(\d+) min )?(\d+) s$")
"""Line with which a stage of a bootstrap ends."""
FRAMES = 45
"""Frames of a video: one clip."""


class Failed(Exception):
    """A command that did not return 0, with its last lines."""


def render_talks(folder: Path) -> None:
    """Write two people with two mp4 files each, which differ in their speech."""
    from xdub.media import write_video
    from xdub.render.clips import make_clips

    for name, index in (("anna", 0), ("ben", 40)):
        pair = next(make_clips(0, [index], size=64, frames=FRAMES, full_size=160))
        (folder / name).mkdir(parents=True)
        write_video(folder / name / "a.mp4", pair.full, audio=pair.clip.audio, crf=10)
        write_video(folder / name / "b.mp4", pair.twin_full, audio=pair.twin.audio, crf=10)


class Journey:
    """Commands in one folder, and the seconds of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        """{recipe, stage, seconds} in the order of the stages."""
        self.scores: dict[str, dict[str, float]] = {}
        """Recipe -> scores of its dub."""

    def prepare(self) -> None:
        """Render the videos, write the weights and the clips, which both recipes read."""
        begin = time.monotonic()
        render_talks(self.folder / "talks")
        self._row("", "render mp4 files", time.monotonic() - begin)
        self.xdub("", "weights mini", "--out", "w")
        self.xdub("", "prepare", "talks", "--recipe", "mini", "--out", "ds")

    def run(self, recipe: str) -> None:
        """Train, dub and score with one recipe."""
        settings = [word for value in ("weights=w", *RECIPES[recipe]) for word in ("--set", value)]
        run, dub = f"run-{recipe}", f"{recipe}.mp4"
        self.xdub(recipe, "bootstrap", "--recipe", recipe, *settings, "--data", "ds", "--out", run)
        source, speech = "talks/anna/a.mp4", "talks/anna/b.mp4"
        self.xdub(
            recipe, "dub", "--video", source, "--audio", speech, "--out", dub, "--model", f"{run}/bundle"
        )
        printed = self.xdub(
            recipe, "eval score", "--video", dub, "--reference", speech, "--source", source, "--json"
        )
        self.scores[recipe] = json.loads(printed)

    def xdub(self, recipe: str, verb: str, *arguments: str) -> str:
        """Run a command of the user, add its rows as its stages end, and return what it prints.

        Raise Failed with its last lines.
        """
        begin, lines = time.monotonic(), list[str]()
        command = [sys.executable, "-c", XDUB, *verb.split(), *arguments]
        with tempfile.TemporaryFile("w+") as output:
            with subprocess.Popen(
                command, cwd=self.folder, stdout=output, stderr=subprocess.PIPE, text=True
            ) as process:
                for line in process.stderr or ():
                    lines.append(line)
                    if verb == "bootstrap" and (stage := STAGE.match(line)):
                        name, minutes, seconds = stage.groups()
                        self._row(recipe, name, 60 * int(minutes or 0) + int(seconds))
            if process.returncode:
                raise Failed(f"xdub {verb}: " + "".join(lines[-20:]))
            self._row(recipe, verb, time.monotonic() - begin)
            output.seek(0)
            return output.read()

    def _row(self, recipe: str, stage: str, seconds: float) -> None:
        self.rows.append({"recipe": recipe, "stage": stage, "seconds": round(seconds, 1)})
        print(f"{recipe:8} {stage:28} {seconds:6.1f} s", flush=True)


def add_parser(commands: Any) -> None:
    """Add the command `mini` and its options."""
    parser = commands.add_parser("mini", help="the production path as a miniature", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), action="append", help="default: both")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the journey and print its table; return 1 after a failure."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mini-") as folder:
        journey = Journey(Path(folder).resolve())
        try:
            journey.prepare()
            for recipe in args.recipe or RECIPES:
                journey.run(recipe)
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
    seconds = round(time.monotonic() - begin)
    print(f"{seconds} s")
    result: dict[str, Any] = {"seconds": seconds, "stages": journey.rows, "scores": journey.scores}
    result |= {"command": " ".join(["python -m perf", *sys.argv[1:]]), "environment": environment()}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
