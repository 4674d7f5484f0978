"""Rendered clips and their twins: numbers in, pixels with speech and ground truth out.

Clip `index` shows identity `index // TAKES` (its take `index % TAKES`). Everything is decided by (seed, index).
Indices from HELD_OUT on are reserved for evaluation: no training set may contain them, so their people, voices and
sentences are unseen by construction.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xdub.data.clip import Clip, clip_id_of
from xdub.data.transforms import crop, crop_boxes, crop_points
from xdub.errors import UserError
from xdub.render import truth
from xdub.render.avatar import PIVOT, Avatar, Shape, load_avatar
from xdub.render.gl import Mesh, Rasteriser
from xdub.render.hair import hair_pieces
from xdub.render.head import build_mesh
from xdub.render.motion import Motion, draw_motion
from xdub.render.person import Identity, draw_identity
from xdub.render.scene import Scene, draw_scene, strands
from xdub.render.skin import paint
from xdub.render.speech import Speech, speak
from xdub.render.surfaces import Piece, ambient
from xdub.render.wear import worn_pieces
from xdub.seeding import rng as seeded

TAKES = 4
HELD_OUT = 1_000_000


@dataclass(frozen=True, eq=False)
class RenderedPair:
    """A clip and its twin: same person, motion, blinks, scene; other speech. Full frames are [F,S,S,3] uint8."""

    clip: Clip
    twin: Clip
    full: np.ndarray
    twin_full: np.ndarray
    boxes: np.ndarray  # [F,3] face crop in the full frames, the same for both
    full_landmarks: np.ndarray  # [F,68,2] px of the full frames, of `clip`
    twin_landmarks: np.ndarray
    curves: dict[str, np.ndarray]  # ARKit curves of `clip`, [F]
    twin_curves: dict[str, np.ndarray]
    phones: tuple[tuple[str, float], ...]
    twin_phones: tuple[tuple[str, float], ...]
    identity: int


@dataclass(frozen=True, eq=False)
class _Person:
    identity: Identity
    shape: Shape
    pieces: list[Piece]
    picture: np.ndarray
    hair_flow: np.ndarray


@lru_cache(maxsize=1)
def _open() -> np.ndarray:
    return ambient(load_avatar())


@lru_cache(maxsize=4)
def _rasteriser(size: int, thread: int) -> Rasteriser:
    return Rasteriser(size)


@lru_cache(maxsize=2)
def _person(seed: int, number: int) -> _Person:
    avatar = load_avatar()
    identity = draw_identity(seed, number)
    rng = seeded("render", seed, "looks", number)
    shape = avatar.shape(identity.macro, identity.build, identity.axes, identity.shapes)
    normal = avatar.moving(shape, np.zeros((1, 52), np.float32))[0, :, 3:]
    pieces = hair_pieces(avatar, shape, normal, identity, rng)
    pieces += worn_pieces(avatar, shape, normal, identity, rng)
    flow = np.array([rng.uniform(1.5, 3.5), rng.uniform(0.6, 1.2)])
    return _Person(identity, shape, pieces, paint(identity, rng), flow)


def curve_matrix(avatar: Avatar, *groups: dict[str, np.ndarray]) -> np.ndarray:
    """Sum of named curves [F] as [F,52] float32 in the avatar's order, kept within 0..1."""
    frames = len(next(iter(groups[0].values())))
    matrix = np.zeros((frames, len(avatar.unit)), np.float32)
    for group in groups:
        for name, values in group.items():
            matrix[:, avatar.unit[name]] += values
    return np.clip(matrix, 0, 1)


def _draw(
    person: _Person,
    scene: Scene,
    motion: Motion,
    moving: np.ndarray,
    target: Rasteriser,
    like: np.ndarray | None = None,
    boxes: list[tuple[int, int, int, int]] | None = None,
) -> np.ndarray:
    """[F,S,S,4] uint8 of one loaded mesh; `moving` [F,V,6] covers the avatar's own vertices.

    Given frames `like` that differ within `boxes` only, no more than the boxes is drawn.
    """
    extra = [np.concatenate([p.position, p.normal], 1).astype(np.float32) for p in person.pieces]
    tail = np.concatenate(extra) if extra else np.zeros((0, 6), np.float32)
    whole = (0, 0, target.size, target.size)
    images = np.empty((len(moving), target.size, target.size, 4), np.uint8) if like is None else like.copy()
    for frame, vertices in enumerate(moving):
        parts = [vertices, tail]
        if scene.occluder is not None and scene.path is not None:
            here = scene.occluder.position + scene.path[frame]
            parts.append(np.concatenate([here, scene.occluder.normal], 1).astype(np.float32))
        target.uniforms(turn=motion.turn[frame], shift=motion.shift[frame], gaze=motion.gaze[frame])
        x0, y0, x1, y1 = boxes[frame] if boxes is not None else whole
        images[frame, y0:y1, x0:x1] = target.draw(np.concatenate(parts), (x0, y0, x1, y1))
    return images


def _load(avatar: Avatar, person: _Person, scene: Scene, target: Rasteriser) -> None:
    pieces = person.pieces + ([scene.occluder] if scene.occluder is not None else [])
    mesh: Mesh = build_mesh(avatar, person.identity, _open(), pieces)
    target.load(mesh, scene.backdrop, paint=person.picture, strands=strands())
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
        iris_color=person.identity.iris,
        hair_color=person.identity.hair,
        hair_flow=person.hair_flow,
    )


def _render(
    seed: int, index: int, *, size: int, frames: int, full_size: int, crop_scale: float
) -> RenderedPair:
    avatar, person = load_avatar(), _person(seed, index // TAKES)
    target = _rasteriser(full_size, threading.get_ident())
    who = person.identity
    motion = draw_motion(seeded("render", seed, "motion", index), frames, who.smile)
    scene = draw_scene(seeded("render", seed, "scene", index), full_size, frames, who.skin)
    said = [
        speak(seeded("render", seed, "speech", index, take), who.voice, frames) for take in ("clip", "twin")
    ]
    _load(avatar, person, scene, target)

    silent = avatar.positions(person.shape, curve_matrix(avatar, motion.curves))
    # The box follows the resting face: lips and jaw cannot move it, and twins share it.
    boxes = crop_boxes(truth.landmarks(avatar, silent, motion, scene.camera, full_size), scale=crop_scale)
    outline = truth.face_outline(avatar, person.shape, motion, scene.camera, full_size)
    face_mask = truth.hull_masks(crop_points(outline, boxes, size), size, 1.05)

    takes = [
        avatar.moving(person.shape, curve_matrix(avatar, motion.curves, speech.curves)) for speech in said
    ]
    first = _draw(person, scene, motion, takes[0], target)
    differ = truth.changed_boxes(avatar, takes[0], takes[1], motion, scene.camera, full_size)
    second = _draw(person, scene, motion, takes[1], target, like=first, boxes=differ)

    made: list[tuple[Clip, np.ndarray, np.ndarray]] = []
    for role, speech, moving, images in zip(("clip", "twin"), said, takes, (first, second), strict=True):
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
            speaker=f"render:{seed}/identity-{who.number}",
            frames=cropped,
            audio=speech.audio,
            landmarks=inside,
            face_mask=face_mask,
            lip_mask=truth.hull_masks(inside[:, 48:60], size, 1.3),
            occluder_mask=hidden,
            opening=truth.opening(avatar, moving[..., :3], person.shape),
            twin_of=made[0][0].clip_id if made else None,
        )
        made.append((clip, pixels, points))
    (clip, full, points), (twin, twin_full, twin_points) = made
    return RenderedPair(
        clip=clip,
        twin=twin,
        full=full,
        twin_full=twin_full,
        boxes=boxes,
        full_landmarks=points,
        twin_landmarks=twin_points,
        curves=_record(motion, said[0]),
        twin_curves=_record(motion, said[1]),
        phones=said[0].phones,
        twin_phones=said[1].phones,
        identity=who.number,
    )


def _record(motion: Motion, speech: Speech) -> dict[str, np.ndarray]:
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
) -> Iterator[RenderedPair]:
    """Render clips and their twins, one by one.

    Args:
        seed: decides everything together with each index.
        indices: clip numbers; those from HELD_OUT on are for evaluation only.
        size: px of the square face crop. frames: video frames at 25 per second. full_size: px of the full picture.
        crop_scale: widens (above 1) or tightens the face crop.

    Raises:
        UserError: sizes out of range, no OpenGL, or avatar data missing.
    """
    for name, value, low in (("size", size, 16), ("frames", frames, 1), ("full_size", full_size, 64)):
        if value < low:
            raise UserError(f"{name} is {value}: the renderer needs at least {low}")
    for index in indices:
        if index < 0:
            raise UserError(f"clip index {index}: indices count from 0")
        yield _render(seed, index, size=size, frames=frames, full_size=full_size, crop_scale=crop_scale)


def render_full_clip(
    seed: int, index: int, seconds: float, *, size: int = 80, full_size: int = 256
) -> RenderedPair:
    """One longer held-out clip with its full frames, sound and twin: take `index` of the reserved range.

    `index` counts from 0 within the reserved range, or is given absolutely (>= HELD_OUT). It has
    round(25 * seconds) frames.
    """
    if seconds <= 0:
        raise UserError(f"seconds is {seconds}: give a length above 0")
    absolute = index if index >= HELD_OUT else HELD_OUT + index
    return next(
        make_clips(seed, [absolute], size=size, frames=max(1, round(25 * seconds)), full_size=full_size)
    )
