"""`python -m perf mutations`: damaged files, in the real verbs, cost themselves alone and are all accounted for.

Films of eight formats with a rendered head are damaged and prepared with the whole ones: every file has a row in the
ledger, and the clips of the whole ones are those of a run without the damaged. Shards are damaged and read with and
without their hashes: every row is read as before or refused, in a process of its own that notices a crash.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from perf.environment import environment

SLOW = 60.0
"""Seconds after which a file counts as hanging."""
SETTINGS = ("video.size=64", "video.clip_frames=25", "video.crop_scale=1.0")
FORMATS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "front.mp4": {"header": {"movflags": "faststart"}},
    "b.mkv": {},
    "c.webm": {"codec": "libvpx-vp9", "audio_codec": "libopus"},
    "d.ts": {},
    "e.avi": {"codec": "mpeg4", "audio_codec": "mp2"},
    "f.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p", "audio_codec": "pcm_s16le"},
    "g.mpg": {"codec": "mpeg2video", "audio_codec": "mp2"},
}
"""Settings of `xdub.media.testing.TestFilm` by file name."""


def add_parser(commands: Any) -> None:
    """Add the command's options."""
    parser = commands.add_parser("mutations", help="damaged media files and shards, all accounted for")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run both checks; return 0 if nothing crashed, hung, went missing or changed."""
    with tempfile.TemporaryDirectory() as folder:
        media = media_rows(Path(folder), args.files, args.seed) if args.files else {}
        shards = shard_rows(Path(folder), args.shards, args.seed) if args.shards else {}
    result = {"environment": environment(), "media": media, "shards": shards}
    print(json.dumps({"media": media, "shards": shards}, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if all(part.get("passed", True) for part in (media, shards)) else 1


def media_rows(folder: Path, files: int, seed: int) -> dict[str, Any]:
    """Prepare damaged and whole files together; return counts and what went wrong."""
    from xdub.config import load_recipe
    from xdub.data.ledger import Ledger
    from xdub.data.manifest import read_manifest
    from xdub.data.prepare import prepare_videos
    from xdub.media.mutations import KINDS, mutate

    recipe = load_recipe("tiny", SETTINGS)
    whole, mixed = folder / "whole", folder / "mixed"
    whole.mkdir()
    mixed.mkdir()
    write_films(whole, seed)
    prepare_videos([whole], folder / "alone", recipe, workers=1)
    alone = [read_manifest(folder / "alone").digest, sorted(read_manifest(folder / "alone").ids)]
    names = sorted(path.name for path in whole.iterdir())
    kinds: dict[str, str] = {}
    for number in range(files):
        rng = np.random.default_rng([seed, number])
        name, kind = names[number % len(names)], KINDS[number // len(names) % len(KINDS)]
        path = mixed / f"{number:05d}-{name}"
        path.write_bytes(mutate((whole / name).read_bytes(), kind, rng))
        kinds[str(path)] = kind
    begin = time.monotonic()
    prepare_videos([whole, mixed], folder / "both", recipe, workers=1)
    seconds = time.monotonic() - begin
    rows = list(Ledger(folder / "both").rows())
    statuses, checks = Counter[str](), Counter[str]()
    taken: dict[str, float] = {}
    by_input: dict[str, set[str]] = {}
    for row in rows:
        by_input.setdefault(row.input, set()).add(row.status)
        taken[row.input] = taken.get(row.input, 0.0) + row.seconds
        checks[row.check or row.status] += 1
    for path in kinds:
        results = by_input.get(path, set())
        statuses["kept" if "kept" in results else min(results, default="missing")] += 1
    ids = set(read_manifest(folder / "both").ids)
    crashes = [row.message for row in rows if "DecoderCrash" in row.message]
    defects = [row.message for row in rows if row.status == "failed" and "DecoderCrash" not in row.message]
    slow = [path for path, value in taken.items() if value > SLOW]
    unharmed = set(alone[1]) <= ids
    copies = _copies(whole, mixed)
    return {
        "files": files,
        "statuses": dict(statuses),
        "copies": copies,
        "rows_by_check": dict(checks.most_common()),
        "crashes": crashes,
        "defects": defects,
        "slower_than_60_s": slow,
        "slowest_s": round(max(taken.values(), default=0.0), 1),
        "seconds": round(seconds),
        "whole_clips": len(alone[1]),
        "whole_clips_unharmed": unharmed,
        "passed": unharmed and statuses["missing"] <= copies and not slow and not defects,
    }


def _copies(whole: Path, mixed: Path) -> int:
    """Return how many damaged files equal another file: prepare skips copies without a row of their own."""
    contents = Counter(path.read_bytes() for folder in (whole, mixed) for path in folder.iterdir())
    return sum(count - 1 for count in contents.values())


def write_films(folder: Path, seed: int) -> None:
    """Write a film of a rendered, speaking head in every format."""
    from xdub.media.testing import TestFilm, write_test_film
    from xdub.render.clips import make_clips

    pair = next(make_clips(seed, [0], size=64, frames=30, full_size=160, crop_scale=1.0))
    frames, sound = pair.full, pair.clip.audio

    class Head(TestFilm):
        def picture(self, time: float) -> np.ndarray:
            return frames[min(round(time * 25), len(frames) - 1)]

        def samples(self) -> np.ndarray:
            return np.repeat(sound, self.audio_rate // 16000)

    for name, settings in FORMATS.items():
        film = Head(
            seconds=len(frames) / 25, size=frames.shape[2:0:-1], sound=(0.0, len(frames) / 25), **settings
        )
        write_test_film(folder / name, film)


def shard_rows(folder: Path, shards: int, seed: int) -> dict[str, Any]:
    """Damage one shard of a small data set at a time, and read it all in another process."""
    from xdub.data.shards import ShardWriter
    from xdub.data.testing import make_clip
    from xdub.media.mutations import KINDS, mutate

    source = folder / "set"
    with ShardWriter(source, rows_per_shard=2) as writer:
        for number in range(6):
            writer.add(make_clip(number, num_frames=5))
    names = sorted(path.name for path in source.glob("shard-*.parquet"))
    data = {name: (source / name).read_bytes() for name in names}
    cases = []
    for number in range(shards):
        rng = np.random.default_rng([seed, 1, number])
        name, kind = names[number % len(names)], KINDS[number % len(KINDS)]
        case = folder / "cases" / f"{number:04d}"
        shutil.copytree(source, case)
        (case / name).write_bytes(mutate(data[name], kind, rng))
        cases.append({"folder": str(case), "shard": name, "kind": kind})
    results: list[dict[str, Any]] = []
    crashes: list[str] = []
    begin = time.monotonic()
    while len(results) < len(cases):
        rest = [case["folder"] for case in cases[len(results) :]]
        process = subprocess.run(
            [sys.executable, "-m", "perf.system.read_damaged", str(source), *rest],
            capture_output=True,
            text=True,
            timeout=SLOW * max(1, len(rest)),
            check=False,
        )
        results += [json.loads(line) for line in process.stdout.splitlines()]
        if len(results) < len(cases):
            case = cases[len(results)]
            crashes.append(f"{case['folder']} ({case['kind']}): exit {process.returncode}")
            results.append({"verified": {}, "unverified": {}, "defects": [process.stderr[-300:]]})
    counts: dict[str, Counter[str]] = {"verified": Counter(), "unverified": Counter()}
    for result in results:
        for mode, counter in counts.items():
            counter.update(result[mode])
    defects = [text for result in results for text in result["defects"]]
    harmed = sum(result.get("harmed", 0) for result in results)
    changed = counts["verified"]["changed"]
    return {
        "shards": shards,
        "rows": {mode: dict(counter) for mode, counter in counts.items()},
        "crashes": crashes,
        "defects": defects,
        "rows_of_whole_shards_harmed": harmed,
        "seconds": round(time.monotonic() - begin),
        "passed": not crashes and not defects and not harmed and not changed,
    }
