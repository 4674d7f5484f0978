"""`python -m perf screening`: what the checks of footage find on rendered people, whose truth is known.

Every person has two takes, each as a file of its own. The command groups them by speaker (precision and recall over
pairs of clips), searches copies that passed through a codec, measures offsets of sound and lips from 5 frames early to
5 late and with foreign speech, and chooses the speaking one of two faces. It also reports the range of every value.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perf.environment import environment

if TYPE_CHECKING:
    from xdub.config import Recipe
    from xdub.data.clip import Clip

TAKES = 2
"""Takes of every person."""
OFFSETS = range(-5, 6)
"""Frames by which the sound is made late."""
RIVALS = 5
"""Other clips that each clip is compared with, as foreign speech and as a second face."""


def add_parser(commands: Any) -> None:
    """Add the command `screening` and its options."""
    parser = commands.add_parser(
        "screening", help="checks of footage on rendered people", description=__doc__
    )
    parser.add_argument("--people", type=int, default=50, help="rendered people (default 50)")
    parser.add_argument("--frames", type=int, default=75, help="frames of every clip (default 75)")
    parser.add_argument(
        "--copies", type=int, default=10, help="clips of which a copy is searched (default 10)"
    )
    parser.add_argument(
        "--offset-clips", type=int, default=20, help="clips whose offsets are measured (default 20)"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Render, measure, print and write the result; return the exit code."""
    from xdub.config import load_recipe

    recipe = load_recipe("tiny")
    begin = time.perf_counter()
    clips = rendered(args.seed, args.people, args.frames)
    result: dict[str, Any] = {"people": args.people, "takes": TAKES, "frames": args.frames, "seed": args.seed}
    result["render_seconds"] = time.perf_counter() - begin
    result["speakers"] = group(recipe, clips, args.copies)
    result["checks"] = values(recipe, clips)
    result["offsets"] = offsets(recipe, clips[: args.offset_clips])
    result["two_faces"] = two_faces(clips)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps({"environment": environment(), **result}, indent=1) + "\n")
    return 0


def rendered(seed: int, people: int, frames: int) -> list[Clip]:
    """Render two takes of every person, take by take."""
    from xdub.render.clips import TAKES as STRIDE
    from xdub.render.clips import make_clips

    clips = {}
    # Takes of one person follow each other, because the person's head is built once.
    for number in range(people):
        for take in range(TAKES):
            pair = next(make_clips(seed, [STRIDE * number + take], size=64, frames=frames, full_size=192))
            name = f"{take}-{number}"
            source = f"film/{name}.mp4:0-{frames}"
            clips[take, number] = replace(pair.clip, clip_id=name, source=source, speaker=name, twin_of=None)
    return [clips[key] for key in sorted(clips)]


def group(recipe: Recipe, clips: Sequence[Clip], copies: int) -> dict[str, Any]:
    """Group the clips and copies of the first ones, which are cut 3 frames later and pass through a codec."""
    from xdub.data.duplicates import read_duplicates
    from xdub.data.manifest import read_manifest
    from xdub.data.shards import ShardWriter
    from xdub.speakers import group_clips

    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        with ShardWriter(folder, 32, kind="clips") as writer:
            for clip in clips:
                writer.add(clip)
            for clip in clips[:copies]:
                writer.add(copy_of(clip, draw))
        report = group_clips(recipe, folder, local=True)
        manifest = read_manifest(folder)
        speakers = np.array(list(manifest.speakers or ()))[: len(clips)]
        duplicates = read_duplicates(manifest.folder)
    people = np.array([clip.clip_id.partition("-")[2] for clip in clips])
    other = ~np.eye(len(clips), dtype=bool)
    same = (speakers[:, None] == speakers) & other
    true = (people[:, None] == people) & other
    right = sum(duplicates.get(f"{clip.clip_id}-copy", None) is not None for clip in clips[:copies])
    return {
        "precision": float((same & true).sum() / max(1, same.sum())),
        "recall": float((same & true).sum() / true.sum()),
        "groups": len(set(speakers)),
        "copies": copies,
        "copies_found": right,
        "false_copies": len(duplicates) - right,
        "seconds_per_clip": report.seconds / report.clips,
    }


def copy_of(clip: Clip, draw: np.random.Generator) -> Clip:
    """Return a copy that begins 3 frames later, with noise, other loudness and a lossy picture."""
    from xdub.media import decode_clip_bytes, encode_clip_bytes

    frames = decode_clip_bytes(encode_clip_bytes(clip.frames[3:]))
    audio = 0.7 * clip.audio[3 * 640 :] + draw.normal(0, 0.001, len(clip.audio) - 3 * 640)
    name = f"{clip.clip_id}-copy"
    masks = {key: getattr(clip, key)[3:] for key in ("landmarks", "face_mask", "lip_mask", "occluder_mask")}
    return replace(
        clip,
        clip_id=name,
        source=f"other/{name}.mp4:0-{len(frames)}",
        frames=frames,
        audio=audio.astype(np.float32),
        opening=None,
        **masks,
    )


def values(recipe: Recipe, clips: Sequence[Clip]) -> dict[str, list[float]]:
    """Return minimum, median and maximum of every value of good clips, and the number of rejected ones."""
    from xdub.screen.screen import Screen

    screen = Screen(recipe)
    results = [screen(footage(clip)) for clip in clips]
    names = [name for name in results[0].scores if not name.endswith((".least", ".most"))]
    ranges = {
        name: np.quantile([one.scores[name] for one in results if name in one.scores], (0, 0.5, 1)).tolist()
        for name in names
    }
    return ranges | {"rejected": [float(sum(one.failure is not None for one in results))]}


def offsets(recipe: Recipe, clips: Sequence[Clip]) -> dict[str, float]:
    """Measure known offsets, and the confidence for foreign speech."""
    from xdub.perception.syncnet.load import load_sync
    from xdub.screen.offset import read_offset

    network = load_sync(recipe.perception)
    moved = [(late, read_offset(network, footage(clip, late=late))) for clip in clips for late in OFFSETS]
    foreign = [
        read_offset(network, footage(clip, sound=clips[(n + step) % len(clips)].sound))
        for n, clip in enumerate(clips)
        for step in range(1, RIVALS + 1)
    ]
    return {
        "measured": len(moved),
        "right": sum(reading.offset == late for late, reading in moved) / len(moved),
        "least_confidence": min(reading.confidence for _, reading in moved),
        "foreign": len(foreign),
        "foreign_most_confidence": max(reading.confidence for reading in foreign),
        "threshold": recipe.screen.offset_confidence,
    }


def two_faces(clips: Sequence[Clip]) -> dict[str, float]:
    """Choose the speaker of two people who both move their lips, by true landmarks."""
    from xdub.screen.active_speaker import lip_voice, loudness

    leads = []
    for n, clip in enumerate(clips):
        voice = loudness(clip.audio, clip.num_frames)
        own = lip_voice(clip.landmarks, voice)
        leads += [
            own - lip_voice(clips[(n + step) % len(clips)].landmarks, voice) for step in range(1, RIVALS + 1)
        ]
    values = np.array(leads)
    clear = np.abs(values) >= 0.15
    return {
        "choices": len(values),
        "right": float((values > 0).mean()),
        "clear": float(clear.mean()),
        "right_of_clear": float((values[clear] > 0).mean()),
    }


def footage(clip: Clip, *, late: int = 0, sound: np.ndarray | None = None) -> Any:
    """Return what checks read of a clip, with its sound late by a number of frames, or with other sound."""
    from xdub.screen.check import Footage

    heard = np.roll(clip.sound if sound is None else sound, 640 * late)
    return Footage(frames=clip.frames, landmarks=clip.landmarks, sound=heard)
