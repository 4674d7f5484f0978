"""`python -m perf masks`: the masks of `xdub prepare` on rendered people, whose truth is known.

The command measures how far the area of the face mask follows the mouth, beside a hull of the lips, whether the open
mouth lies inside the mask, also of a head that turns by 60 degrees, and the overlap of the light occluder finder with
the true microphones and hands. The picture shows the masks of a few clips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from perf.environment import environment

if TYPE_CHECKING:
    from xdub.data.clip import Clip
    from xdub.masks.face_shape import FaceViews

SIZE, FULL = 192, 384
"""Sides of the crops and of the pictures, px."""
TURN = np.radians(60)
"""Largest turn of a turning head."""
SHOWN = 6
"""Frames of a clip in the picture."""


def add_parser(commands: Any) -> None:
    """Add the command `masks` and its options."""
    parser = commands.add_parser(
        "masks", help="face masks and occluders on rendered people", description=__doc__
    )
    parser.add_argument("--people", type=int, default=12, help="people of each kind of clip (default 12)")
    parser.add_argument("--frames", type=int, default=75, help="frames of every clip (default 75)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--picture", type=Path, help="write the masks of a few clips to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Render, measure, print and write the result; return the exit code."""
    from xdub.masks.light import LightFinder
    from xdub.masks.mesh_shape import MeshShape
    from xdub.perception.face_mesh import hull_masks

    shape, finder = MeshShape(), LightFinder()
    result: dict[str, Any] = {"people": args.people, "frames": args.frames, "seed": args.seed}
    strips = []
    for kind in ("plain", "turning", "occluded"):
        areas, lips, openings, inside, marked = [], [], [], [], []
        overlaps: dict[str, list[tuple[int, int]]] = {"microphone": [], "hand": []}
        for index, (clip, views, thing) in enumerate(films(kind, args.seed, args.people, args.frames)):
            face = shape.masks(views)
            objects = finder.find(views, face)
            tracked = face.any(axis=(1, 2))
            mouth = hull_masks(clip.landmarks[:, 48:68], SIZE, SIZE)
            inside.append(not (mouth & ~face)[tracked].any())
            assert clip.opening is not None
            for values, mask in ((areas, face), (lips, mouth)):
                area = mask[tracked].sum(axis=(1, 2))
                values.append(area / area.mean() - 1)
            openings.append(clip.opening[tracked] - clip.opening[tracked].mean())
            truth = clip.occluder_mask & face
            if kind == "occluded":
                overlaps[thing].append(((objects & truth).sum(), (objects | truth).sum()))
            marked.append((objects & ~truth).sum() / face.sum())
            if index < 2 or kind == "occluded" and index < 6:
                strips.append(strip(views.frames, face, objects))
        result[kind] = {
            "mask_area_correlation": correlation(areas, openings),
            "lip_hull_correlation": correlation(lips, openings),
            "clips_with_mouth_inside": f"{sum(inside)} of {len(inside)}",
            "falsely_covered_share": float(np.mean(marked)),
        }
        if kind == "occluded":
            for thing, pairs in overlaps.items():
                values = [common / union for common, union in pairs if union]
                result[thing] = {
                    "clips": len(values),
                    "iou_mean": float(np.mean(values)),
                    "iou_min": min(values),
                }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps({"environment": environment(), **result}, indent=1) + "\n")
    if args.picture:
        write_picture(strips, args.picture)
    return 0


def films(kind: str, seed: int, people: int, frames: int) -> Iterator[tuple[Clip, FaceViews, str]]:
    """Yield rendered clips with their tracked meshes, and the name of the object in front of the face."""
    from xdub.data.transforms import crop_mesh
    from xdub.masks.face_shape import FaceViews
    from xdub.perception.faces import FaceTracker
    from xdub.render import clips, scene

    draw, prop = clips.draw_motion, scene.draw_occluder
    objects: list[str] = []

    def turned(rng: np.random.Generator, count: int, smile: float) -> Any:
        angle = TURN * np.sin(np.linspace(0, 2 * np.pi, count))
        turn = np.zeros((count, 3, 3))
        turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1] = np.cos(angle), np.sin(angle), 1
        turn[:, 2, 0], turn[:, 2, 2] = -np.sin(angle), np.cos(angle)
        return replace(draw(rng, count, smile), turn=turn)

    def named(rng: np.random.Generator, skin: np.ndarray, count: int) -> Any:
        piece, path = prop(rng, skin, count)
        # A microphone sways in a plane, and a hand comes from the side.
        objects.append("microphone" if float(np.ptp(path[:, 2])) < 1e-6 else "hand")
        return piece, path

    with (
        patch.object(clips, "draw_motion", turned if kind == "turning" else draw),
        patch.object(scene, "OCCLUDED", 1.0 if kind == "occluded" else 0.0),
        patch.object(scene, "draw_occluder", named),
        FaceTracker() as tracker,
    ):
        for number in range(people):
            index = clips.TAKES * number
            pair = next(clips.make_clips(seed, [index], size=SIZE, frames=frames, full_size=FULL))
            mesh = tracker.track(pair.full, keep_mesh=True).landmarks478
            assert mesh is not None
            own = crop_mesh(mesh, pair.boxes, SIZE)
            views = FaceViews(frames=pair.clip.frames, landmarks=pair.clip.landmarks, mesh=own, person=mesh)
            yield pair.clip, views, objects[-1] if objects else ""


def correlation(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Return the correlation of the values of all clips."""
    return float(np.corrcoef(np.concatenate(one), np.concatenate(other))[0, 1])


def strip(frames: np.ndarray, face: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Draw a few frames of a clip with their masks."""
    from xdub.report.review_page import ReviewedClip
    from xdub.report.review_page import strip as draw

    index = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
    parts = {"frames": frames[index], "face": face[index], "objects": objects[index]}
    return draw(ReviewedClip(clip_id="", source="", share=0.0, **parts))


def write_picture(strips: list[np.ndarray], path: Path) -> None:
    """Write strips in two columns at half their size."""
    from PIL import Image

    half = (len(strips) + 1) // 2
    strips = strips + [np.full_like(strips[0], 255)] * (2 * half - len(strips))
    sheet = np.concatenate([np.concatenate(strips[:half]), np.concatenate(strips[half:])], axis=1)
    picture = Image.fromarray(sheet)
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS).save(path, quality=85)
