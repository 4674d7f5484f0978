"""`python -m perf stages`: cost of each stage of prepare beside plain decoding, workers, and memory of a long video.

Videos of a rendered, speaking head are prepared with one worker and with two. The seconds that cores worked in each
stage are read from the ledger, so other programs on the machine hardly change them. Memory is measured on a short and a
long video in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from perf.environment import environment
from xdub.data.stage_clock import CORES, FOOTAGE, SECONDS
from xdub.geometry import FPS

SETTINGS = ("video.size=64", "video.clip_frames=25", "video.crop_scale=1.0")
RENDERED = 62
"""Number of rendered frames, which a video shows forward and backward in turn."""


def add_parser(commands: Any) -> None:
    """Add the command's options."""
    parser = commands.add_parser("stages", help="cost of each stage of prepare, and memory of a long video")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--side", type=int, default=256, help="Width and height of the videos in px.")
    parser.add_argument("--workers", default="1,2", help="Numbers of workers, separated by commas; or none.")
    parser.add_argument(
        "--long", type=float, default=0.0, help="Seconds of the long video; 0 measures no memory."
    )
    parser.add_argument("--json", type=Path)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print and write the results."""
    result: dict[str, Any] = {"environment": environment(), "side": args.side}
    with tempfile.TemporaryDirectory() as name:
        folder, talk = Path(name), Talk(args.side)
        videos = [talk.write(folder / "in" / f"{n}.mp4", args.seconds, n) for n in range(args.videos)]
        result["decoding"] = plain_decoding(videos[0])
        counts = [int(text) for text in args.workers.split(",") if text]
        result["prepare"] = [prepare(videos, folder / f"out{n}", n) for n in counts]
        for row in result["prepare"]:
            row["ratios"] = {
                stage: round(rate / result["decoding"]["frames_per_core_s"], 4)
                for stage, rate in row["frames_per_core_s"].items()
            }
        if args.long:
            short = memory(videos[0])
            long = memory(talk.write(folder / "long.mp4", args.long, 0))
            result["memory"] = {"short": short, "long": long}
            result["memory"]["ratio"] = round(long["prepare_mb"] / short["prepare_mb"], 3)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


class Talk:
    """Frames and speech of a rendered head, from which videos of any length are written."""

    def __init__(self, side: int) -> None:
        from xdub.render.clips import make_clips

        pair = next(make_clips(3, [0], size=64, frames=RENDERED, full_size=side, crop_scale=1.0))
        self._frames, self._sound = pair.full, pair.clip.audio

    def write(self, path: Path, seconds: float, number: int) -> Path:
        """Write a video that begins at frame ``number``, so that different numbers have different contents."""
        from xdub.media import write_video

        path.parent.mkdir(exist_ok=True)
        count = round(seconds * FPS)
        sound = np.concatenate([self._sound, self._sound[::-1]])
        repeats = -(-count // (2 * RENDERED)) + 1
        first = number * (len(self._sound) // RENDERED)
        write_video(path, self._shown(count, number), audio=np.tile(sound, repeats)[first:], crf=16)
        return path

    def _shown(self, count: int, number: int) -> Any:
        for n in range(number, number + count):
            turn = n % (2 * RENDERED)
            yield self._frames[min(turn, 2 * RENDERED - 1 - turn)]


def plain_decoding(path: Path) -> dict[str, float]:
    """Decode a video in this process; return frames a second, and a second of one core."""
    from xdub.media import read_video

    wall, cores = time.monotonic(), time.process_time()
    frames = sum(1 for _ in read_video(path))
    wall, cores = time.monotonic() - wall, time.process_time() - cores
    return {
        "frames": frames,
        "frames_per_s": round(frames / wall, 1),
        "frames_per_core_s": round(frames / cores, 1),
    }


def prepare(videos: list[Path], out: Path, workers: int) -> dict[str, Any]:
    """Prepare the videos; return the rate of every stage, and of all by the clock on the wall."""
    from xdub.config import load_recipe
    from xdub.data.ledger import Ledger
    from xdub.data.prepare import prepare_videos

    begin = time.monotonic()
    result = prepare_videos(videos, out, load_recipe("tiny", SETTINGS), workers=workers)
    wall = time.monotonic() - begin
    totals: dict[str, float] = {}
    ends = []
    for row in Ledger(out).rows():
        for name, value in row.scores.items():
            if name == FOOTAGE or name.startswith((CORES, SECONDS)):
                totals[name] = totals.get(name, 0.0) + value
        ends.append(row.seconds)
    frames = totals[FOOTAGE] * FPS
    return {
        "workers": workers,
        "clips": result.clips,
        "wall_s": round(wall, 1),
        "worker_s": round(sum(ends), 1),
        "footage_s": totals[FOOTAGE],
        "frames_per_core_s": {
            name.removeprefix(CORES): round(frames / value, 1)
            for name, value in sorted(totals.items())
            if name.startswith(CORES) and value > 0
        },
        "core_s_per_footage_s": {
            name.removeprefix(CORES): round(value / totals[FOOTAGE], 4)
            for name, value in sorted(totals.items())
            if name.startswith(CORES)
        },
    }


def memory(path: Path) -> dict[str, Any]:
    """Prepare a video in a fresh process; return its peak memory in MB and that of its decoder."""
    command = [sys.executable, "-m", "perf.system.prepare_once", str(path), *SETTINGS]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = json.loads(process.stdout.splitlines()[-1])
    return {name: round(value, 1) for name, value in facts.items() if not name.startswith((CORES, SECONDS))}
