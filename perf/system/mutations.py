"""`python -m perf mutations`: damaged files, in the real verbs, cost themselves alone and are all accounted for.

Films of eight formats with a rendered head are damaged and prepared with the whole ones: every file has a row in the
ledger, and the clips of the whole ones are those of a run without the damaged. Shards are damaged and read with and
without their hashes: every row is read as before or refused, in a process of its own that notices a crash.
"""

from __future__ import annotations

import argparse
import hashlib
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
from xdub.errors import UserError
from xdub.media import isolated
from xdub.media.damage import Damage
from xdub.media.isolated import DecoderCrash

SLOW = 300.0
"""Seconds after which a file counts as hanging; wrong time stamps make minutes of frames from 30."""
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
    parser.add_argument("--files", type=int, default=1000, help="Number of damaged files that are read.")
    parser.add_argument("--prepared", type=int, default=200, help="Number of them that are prepared, too.")
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run both checks; return 0 if nothing crashed, hung, went missing or changed."""
    with tempfile.TemporaryDirectory() as folder:
        media = media_rows(Path(folder), args.files, args.prepared, args.seed) if args.files else {}
        shards = shard_rows(Path(folder), args.shards, args.seed) if args.shards else {}
    result = {"environment": environment(), "media": media, "shards": shards}
    print(json.dumps({"media": media, "shards": shards}, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if all(part.get("passed", True) for part in (media, shards)) else 1


def media_rows(folder: Path, files: int, prepared: int, seed: int) -> dict[str, Any]:
    """Read damaged files; prepare some together with whole ones; return counts and what went wrong."""
    from xdub.media.isolated import close_decoders
    from xdub.media.mutations import KINDS, mutate

    whole, mixed = folder / "whole", folder / "mixed"
    whole.mkdir()
    mixed.mkdir()
    write_films(whole, seed)
    names = sorted(path.name for path in whole.iterdir())
    data = {name: (whole / name).read_bytes() for name in names}
    kinds: dict[Path, str] = {}
    for number in range(files):
        rng = np.random.default_rng([seed, number])
        name, kind = names[number % len(names)], KINDS[number // len(names) % len(KINDS)]
        path = mixed / f"{number:05d}-{name}"
        path.write_bytes(mutate(data[name], kind, rng))
        kinds[path] = kind
    read = read_rows(whole, kinds)
    close_decoders()
    for path in list(kinds)[min(prepared, files) :]:
        path.unlink()
    ledger = ledger_rows(folder, whole, mixed) if prepared else {}
    return {"read": read, "prepared": ledger, "passed": read["passed"] and ledger.get("passed", True)}


def read_rows(whole: Path, kinds: dict[Path, str]) -> dict[str, Any]:
    """Read every damaged file as prepare does, and a whole one after every tenth; count the results by kind."""
    results: dict[str, Counter[str]] = {}
    slowest, crashes, defects, harmed = 0.0, [], [], 0
    good = sorted(whole.iterdir())
    truth = {path: read_all(path)[1] for path in good}
    begin = time.monotonic()
    for number, (path, kind) in enumerate(kinds.items()):
        started = time.monotonic()
        try:
            result, _ = read_all(path)
        except UserError:
            result = "refused"
        except DecoderCrash as error:
            result = "crash"
            crashes.append(f"{path.name} ({kind}): {error}")
        except Exception as error:
            result = "defect"
            defects.append(f"{path.name} ({kind}): {type(error).__name__}: {error}"[:300])
        results.setdefault(kind, Counter())[result] += 1
        slowest = max(slowest, time.monotonic() - started)
        if number % 10 == 0:
            other = good[number // 10 % len(good)]
            harmed += read_all(other)[1] != truth[other]
    return {
        "files": len(kinds),
        "results_by_kind": {kind: dict(counter) for kind, counter in results.items()},
        "crashes": crashes,
        "defects": defects,
        "whole_files_harmed": harmed,
        "slowest_s": round(slowest, 2),
        "seconds": round(time.monotonic() - begin),
        "passed": not defects and not harmed and slowest < SLOW,
    }


def read_all(path: Path) -> tuple[str, tuple[int, str]]:
    """Read facts, frames and sound of a file; return "whole" or "damaged", and the number of frames with a digest."""
    picture, sound = Damage(), Damage()
    info = isolated.probe(path, picture)
    digest, frames = hashlib.sha256(), 0
    for frame in isolated.read_video(path, damage=picture):
        digest.update(np.ascontiguousarray(frame).data)
        frames += 1
    if info.has_audio:
        digest.update(isolated.store_audio(path, damage=sound)[:].data)
    lost = picture.reason or sound.reason or picture.packets or sound.packets
    return "damaged" if lost else "whole", (frames, digest.hexdigest())


def ledger_rows(folder: Path, whole: Path, mixed: Path) -> dict[str, Any]:
    """Prepare damaged and whole files together; return the ledger's rows by result and what went wrong."""
    from xdub.config import load_recipe
    from xdub.data.ledger import Ledger
    from xdub.data.manifest import read_manifest
    from xdub.data.prepare import prepare_videos

    recipe = load_recipe("tiny", SETTINGS)
    prepare_videos([whole], folder / "alone", recipe, workers=1)
    alone = set(read_manifest(folder / "alone").ids)
    begin = time.monotonic()
    prepare_videos([whole, mixed], folder / "both", recipe, workers=1)
    seconds = time.monotonic() - begin
    statuses, checks = Counter[str](), Counter[str]()
    taken: dict[str, float] = {}
    by_input: dict[str, set[str]] = {}
    crashes, defects = [], []
    for row in Ledger(folder / "both").rows():
        by_input.setdefault(row.input, set()).add(row.status)
        taken[row.input] = taken.get(row.input, 0.0) + row.seconds
        checks[row.check or row.status] += 1
        if row.status == "failed":
            (crashes if "DecoderCrash" in row.message else defects).append(row.message)
    files = sorted(mixed.iterdir())
    for path in files:
        results = by_input.get(str(path), set())
        statuses["kept" if "kept" in results else min(results, default="missing")] += 1
    unharmed = alone <= set(read_manifest(folder / "both").ids)
    copies, slowest = _copies(whole, mixed), max(taken.values(), default=0.0)
    return {
        "files": len(files),
        "statuses": dict(statuses),
        "copies": copies,
        "rows_by_check": dict(checks.most_common()),
        "crashes": crashes,
        "defects": defects,
        "slowest_s": round(slowest, 1),
        "seconds": round(seconds),
        "whole_clips": len(alone),
        "whole_clips_unharmed": unharmed,
        "passed": unharmed and statuses["missing"] <= copies and slowest < SLOW and not defects,
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
