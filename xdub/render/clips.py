"""Rendered clips and their twins: pixels, speech and ground truth, computed from a seed and a clip's index alone.

Clip `index` shows person `index // TAKES` in take `index % TAKES`. Indices from FIRST_HELD_OUT on are reserved for
evaluation: no training set may contain them, so their people, voices and sentences are unseen by construction.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xdub.config import CropKind
from xdub.data.clip import Clip, clip_id_of
from xdub.data.landmark_boxes import boxes_from_template
from xdub.data.transforms import crop, crop_boxes, crop_points
from xdub.errors import UserError
from xdub.render import truth
from xdub.render.avatar import PIVOT, Avatar, Shape, load_avatar
from xdub.render.gl import Mesh, Rasteriser
from xdub.render.hair import hair_pieces
from xdub.render.head import build_mesh
from xdub.render.motion import Motion, draw_motion
from xdub.render.person import Person, draw_person
from xdub.render.scene import Surroundings, draw_surroundings, strands
from xdub.render.skin import paint
from xdub.render.speech import Speech, speak
from xdub.render.surfaces import Piece, ambient
from xdub.render.wear import worn_pieces
from xdub.seeding import rng as seeded

TAKES = 4
"""Clips of one person."""
FIRST_HELD_OUT = 1_000_000
"""Index of the first clip that is reserved for evaluation."""


@dataclass(frozen=True, eq=False)
class RenderedPair:
    """A clip and its twin: the same person, motion, blinks and surroundings with other speech."""

    clip: Clip
    twin: Clip
    full: np.ndarray  # [F,S,S,3] uint8, the whole picture
    twin_full: np.ndarray
    boxes: np.ndarray  # [F,3] face crop in the full frames, the same for both
    full_landmarks: np.ndarray  # [F,68,2] px of the full frames
    twin_landmarks: np.ndarray
    curves: dict[str, np.ndarray]  # [F] of each ARKit unit
    twin_curves: dict[str, np.ndarray]
    phones: tuple[tuple[str, float], ...]  # name and start in seconds
    twin_phones: tuple[tuple[str, float], ...]
    identity: int  # the person's number


@dataclass(frozen=True, eq=False)
class _Model:
    """One person with geometry and painted texture."""

    person: Person
    shape: Shape
    pieces: list[Piece]
    texture: np.ndarray
    hair_flow: np.ndarray


@lru_cache(maxsize=1)
def _ambient() -> np.ndarray:
    return ambient(load_avatar())


@lru_cache(maxsize=4)
def _rasteriser(size: int, thread: int) -> Rasteriser:
    """Return this thread's rasteriser for one size: an OpenGL context belongs to a thread."""
    return Rasteriser(size)


@lru_cache(maxsize=2)
def _model(seed: int, number: int) -> _Model:
    avatar = load_avatar()
    person = draw_person(seed, number)
    rng = seeded("render", seed, "looks", number)
    shape = avatar.shape(person.macro, person.build, person.axes, person.shapes)
    normal = avatar.moving(shape, np.zeros((1, 52), np.float32))[0, :, 3:]
    pieces = hair_pieces(avatar, shape, normal, person, rng)
    pieces += worn_pieces(avatar, shape, normal, person, rng)
    flow = np.array([rng.uniform(1.5, 3.5), rng.uniform(0.6, 1.2)])
    return _Model(person, shape, pieces, paint(person, rng), flow)


def curve_matrix(avatar: Avatar, *groups: dict[str, np.ndarray]) -> np.ndarray:
    """Sum named curves [F] into [F,52] float32 in the avatar's order, clipped to 0..1."""
    frames = len(next(iter(groups[0].values())))
    matrix = np.zeros((frames, len(avatar.unit)), np.float32)
    for group in groups:
        for name, values in group.items():
            matrix[:, avatar.unit[name]] += values
    return np.clip(matrix, 0, 1)


def _draw(
    model: _Model,
    scene: Surroundings,
    motion: Motion,
    moving: np.ndarray,
    target: Rasteriser,
    base: np.ndarray | None = None,
    boxes: list[tuple[int, int, int, int]] | None = None,
) -> np.ndarray:
    """Draw [F,S,S,4] uint8 of the loaded mesh; `moving` [F,V,6] covers the avatar's own vertices.

    With frames `base` that differ from the result within `boxes` only, just the boxes are drawn.
    """
    extra = [np.concatenate([p.position, p.normal], 1).astype(np.float32) for p in model.pieces]
    tail = np.concatenate(extra) if extra else np.zeros((0, 6), np.float32)
    whole = (0, 0, target.size, target.size)
    images = np.empty((len(moving), target.size, target.size, 4), np.uint8) if base is None else base.copy()
    for frame, vertices in enumerate(moving):
        parts = [vertices, tail]
        if scene.occluder is not None and scene.path is not None:
            position = scene.occluder.position + scene.path[frame]
            parts.append(np.concatenate([position, scene.occluder.normal], 1).astype(np.float32))
        target.uniforms(turn=motion.turn[frame], shift=motion.shift[frame], gaze=motion.gaze[frame])
        x0, y0, x1, y1 = boxes[frame] if boxes is not None else whole
        images[frame, y0:y1, x0:x1] = target.draw(np.concatenate(parts), (x0, y0, x1, y1))
    return images


def _load(avatar: Avatar, model: _Model, scene: Surroundings, target: Rasteriser) -> None:
    """Load a take's mesh, textures, camera and lights into the rasteriser."""
    pieces = model.pieces + ([scene.occluder] if scene.occluder is not None else [])
    mesh: Mesh = build_mesh(avatar, model.person, _ambient(), pieces)
    target.load(mesh, scene.backdrop, paint=model.texture, strands=strands())
    light = scene.light
    target.uniforms(
        camera=scene.camera,
        pivot=PIVOT,
        half_dir=light.half_dir,
        key_dir=light.key_dir,
        key_color=light.key_color,
        rim_dir=light.rim_dir,
        rim_color=light.rim_color,
        sky=light.sky,
        ground=light.ground,
        exposure=light.exposure,
        iris_color=model.person.iris,
        hair_color=model.person.hair,
        hair_flow=model.hair_flow,
    )


def _render(
    seed: int,
    index: int,
    *,
    size: int,
    frames: int,
    full_size: int,
    crop_scale: float,
    crop_kind: CropKind = "template",
) -> RenderedPair:
    avatar, model = load_avatar(), _model(seed, index // TAKES)
    target = _rasteriser(full_size, threading.get_ident())
    person, shape = model.person, model.shape
    motion = draw_motion(seeded("render", seed, "motion", index), frames, person.smile)
    scene = draw_surroundings(seeded("render", seed, "scene", index), full_size, frames, person.skin)
    speeches = [
        speak(seeded("render", seed, "speech", index, role), person.voice, frames)
        for role in ("clip", "twin")
    ]
    _load(avatar, model, scene, target)

    silent = avatar.positions(shape, curve_matrix(avatar, motion.curves))
    # The box follows the resting face, so lips and jaw cannot move it, and twins share it.
    resting = truth.landmarks(avatar, silent, motion, scene.camera, full_size)
    if crop_kind == "template":
        boxes = crop_boxes(resting, scale=crop_scale)
    else:
        boxes = boxes_from_template(crop_boxes(resting), full_size, full_size, scale=crop_scale)
    outline = truth.face_outline(avatar, shape, motion, scene.camera, full_size)
    face_mask = truth.hull_masks(crop_points(outline, boxes, size), size, 1.05)

    meshes = [avatar.moving(shape, curve_matrix(avatar, motion.curves, speech.curves)) for speech in speeches]
    first = _draw(model, scene, motion, meshes[0], target)
    changed = truth.changed_boxes(avatar, meshes[0], meshes[1], motion, scene.camera, full_size)
    second = _draw(model, scene, motion, meshes[1], target, base=first, boxes=changed)

    rendered: list[tuple[Clip, np.ndarray, np.ndarray]] = []
    for role, speech, moving, images in zip(("clip", "twin"), speeches, meshes, (first, second), strict=True):
        points = truth.landmarks(avatar, moving[..., :3], motion, scene.camera, full_size)
        pixels = np.ascontiguousarray(images[..., :3])
        cropped = crop(pixels, boxes, size)
        inside = crop_points(points, boxes, size)
        hidden = np.zeros((frames, size, size), bool)
        if scene.occluder is not None:
            hidden = crop(np.ascontiguousarray(255 - images[..., 3]), boxes, size) > 40
        source = f"render:{seed}/{index}" + ("/twin" if role == "twin" else "")
        clip = Clip(
            clip_id=clip_id_of(source, cropped, speech.audio),
            source=source,
            speaker=f"render:{seed}/identity-{person.number}",
            frames=cropped,
            audio=speech.audio,
            landmarks=inside,
            face_mask=face_mask,
            lip_mask=truth.hull_masks(inside[:, 48:60], size, 1.3),
            occluder_mask=hidden,
            opening=truth.opening(avatar, moving[..., :3], shape),
            twin_of=rendered[0][0].clip_id if rendered else None,
        )
        rendered.append((clip, pixels, points))
    (clip, full, points), (twin, twin_full, twin_points) = rendered
    return RenderedPair(
        clip=clip,
        twin=twin,
        full=full,
        twin_full=twin_full,
        boxes=boxes,
        full_landmarks=points,
        twin_landmarks=twin_points,
        curves=_all_curves(motion, speeches[0]),
        twin_curves=_all_curves(motion, speeches[1]),
        phones=speeches[0].phones,
        twin_phones=speeches[1].phones,
        identity=person.number,
    )


def _all_curves(motion: Motion, speech: Speech) -> dict[str, np.ndarray]:
    """Return the curves [F] of motion and speech together, by ARKit unit."""
    names = sorted({*motion.curves, *speech.curves})
    zero = np.zeros(len(motion.turn), np.float32)
    return {
        name: np.clip(motion.curves.get(name, zero) + speech.curves.get(name, zero), 0, 1).astype(np.float32)
        for name in names
    }


def make_clips(
    seed: int,
    indices: Iterable[int],
    *,
    size: int = 80,
    frames: int = 45,
    full_size: int = 256,
    crop_scale: float = 1.0,
    crop_kind: CropKind = "template",
) -> Iterator[RenderedPair]:
    """Render clips and their twins, one by one.

    Args:
        seed: seed of all random choices, together with a clip's index.
        indices: clip numbers; numbers from FIRST_HELD_OUT on are for evaluation only.
        size: side of the square face crop in px.
        frames: video frames, 25 per second.
        full_size: side of the full picture in px.
        crop_scale: factor on the side of the face crop: above 1 shows more of the picture.
        crop_kind: ``video.crop`` of a recipe.

    Raises:
        UserError: a size is out of range, OpenGL or the avatar's data is missing.
    """
    for name, value, low in (("size", size, 16), ("frames", frames, 1), ("full_size", full_size, 64)):
        if value < low:
            raise UserError(f"{name} is {value}: the renderer needs at least {low}")
    for index in indices:
        if index < 0:
            raise UserError(f"clip index {index}: indices count from 0")
        yield _render(
            seed,
            index,
            size=size,
            frames=frames,
            full_size=full_size,
            crop_scale=crop_scale,
            crop_kind=crop_kind,
        )


def render_full_clip(
    seed: int, index: int, seconds: float, *, size: int = 80, full_size: int = 256
) -> RenderedPair:
    """Render one longer held-out clip of round(25 * seconds) frames with full frames, sound and twin.

    `index` counts from 0 within the reserved range, or is absolute (FIRST_HELD_OUT and above).

    Raises:
        UserError: as `make_clips`, or `seconds` is not above 0.
    """
    if seconds <= 0:
        raise UserError(f"seconds is {seconds}: a clip needs a length above 0")
    absolute = index if index >= FIRST_HELD_OUT else FIRST_HELD_OUT + index
    return next(
        make_clips(seed, [absolute], size=size, frames=max(1, round(25 * seconds)), full_size=full_size)
    )
