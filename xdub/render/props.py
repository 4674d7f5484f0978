"""Occluders that pass in front of a face: a microphone, or a hand of capsules."""

from __future__ import annotations

import numpy as np

from xdub.render.skin import WHITE
from xdub.render.surfaces import Piece, smooth_normals


def _lathe(profile: np.ndarray, sides: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Turn a profile of (radius, height) rows about the y axis into vertices [n*sides,3] and triangles."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], 1)
    vertices = profile[:, None, 0, None] * ring + np.stack([0 * angle] * 3, 1)[None]
    vertices[..., 1] = profile[:, 1, None]
    triangles = []
    for i in range(len(profile) - 1):
        for j in range(sides):
            a, b = i * sides + j, i * sides + (j + 1) % sides
            triangles += [[a, a + sides, b], [b, a + sides, b + sides]]
    return vertices.reshape(-1, 3), np.asarray(triangles)


def _capsule(start: np.ndarray, end: np.ndarray, thick: float, thin: float) -> tuple[np.ndarray, np.ndarray]:
    """Build a finger-like rod with round ends."""
    length = np.linalg.norm(end - start)
    bow = np.linspace(0, np.pi / 2, 5)
    low = np.stack([thick * np.sin(bow), -thick * np.cos(bow)], 1)
    high = np.stack([thin * np.cos(bow), length + thin * np.sin(bow)], 1)
    vertices, triangles = _lathe(np.concatenate([low, high]), 12)
    y = (end - start) / length
    x = np.cross(y, [0.0, 0.3, 1.0])
    x /= np.linalg.norm(x)
    frame = np.stack([x, y, np.cross(x, y)], 1)
    return vertices @ frame.T + start, triangles


def _occluder(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, float]]) -> Piece:
    """Join (vertices, triangles, colour, skin, gloss) into one marked piece."""
    position, triangles, tint, mark, shift = [], [], [], [], 0
    for vertices, faces, colour, skin, gloss in parts:
        n = len(vertices)
        position.append(vertices)
        triangles.append(faces + shift)
        tint.append(np.concatenate([np.tile(colour, (n, 1)), np.full((n, 1), -1.0)], 1))
        mark.append(np.tile([skin, 0.0, gloss, 0.0], (n, 1)))
        shift += n
    vertices, faces = np.concatenate(position), np.concatenate(triangles)
    n = len(vertices)
    uv = np.tile(np.array(WHITE), (n, 1))
    normal = smooth_normals(vertices, faces)
    return Piece(vertices, normal, np.ones(n), uv, np.concatenate(tint), np.concatenate(mark), faces)


def draw_occluder(rng: np.random.Generator, skin: np.ndarray, frames: int) -> tuple[Piece, np.ndarray]:
    """Draw a microphone or a hand, and its path [F,3] across the lower face."""
    time = (np.arange(frames) + 0.5) / 25
    if rng.uniform() < 0.5:
        grey, dark = rng.uniform(0.03, 0.25) * np.ones(3), rng.uniform(0.01, 0.06) * np.ones(3)
        bow = np.linspace(-np.pi / 2, np.pi / 2, 9)
        ball = _lathe(np.stack([0.25 * np.cos(bow) + 1e-4, 0.25 * np.sin(bow)], 1))
        handle = _lathe(np.array([[0.001, -2.6], [0.12, -2.6], [0.16, -0.3], [0.16, -0.12], [0.001, -0.12]]))
        tilt = np.radians(rng.uniform(-35, 35))
        turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
        top = (ball[0] @ turn.T, ball[1][:, ::-1], grey, 0.0, 0.6)
        stick = (handle[0] @ turn.T, handle[1][:, ::-1], dark, 0.0, 0.8)
        piece = _occluder([top, stick])
        rest = np.array([rng.uniform(-0.35, 0.35), rng.uniform(5.75, 6.35), 2.25])
        rates, phases = rng.uniform(0.1, 0.5, 2), rng.uniform(0, 6, 2)
        sway = np.zeros((frames, 3))
        sway[:, :2] = [0.10, 0.12] * np.sin(2 * np.pi * rates * time[:, None] + phases)
        return piece, rest + sway
    colour = skin * rng.uniform(0.85, 1.05)
    side = rng.choice([-1.0, 1.0])
    spread = rng.uniform(0.17, 0.22)
    parts = []
    for k in range(4):
        base = np.array([side * 0.9, (k - 1.5) * spread * 1.1, 0.0])
        bend = -side * (0.12 * np.sin(k * 1.1 + 0.8))
        tip = np.array([bend, (k - 1.5) * spread * 1.25 + 0.25, -0.05 + 0.03 * k])
        vertices, faces = _capsule(base, tip, 0.115, 0.085)
        parts.append((vertices, faces[:, ::-1], colour, 1.0, 0.5))
    palm, faces = _capsule(np.array([side * 2.0, -0.9, 0.0]), np.array([side * 1.0, -0.05, 0.0]), 0.34, 0.42)
    parts.append((palm * [1, 1, 0.6], faces[:, ::-1], colour, 1.0, 0.4))
    piece = _occluder(parts)
    start = np.array([side * rng.uniform(1.6, 2.6), rng.uniform(-0.8, 0.2), 0.0])
    goal = np.array([side * rng.uniform(-0.1, 0.25), rng.uniform(6.1, 6.6), 2.1])
    begin, stay = rng.uniform(0.0, max(0.1, time[-1] - 0.8)), rng.uniform(0.4, 1.2)
    t = np.clip((time - begin) / 0.5, 0, 1) - np.clip((time - begin - 0.5 - stay) / 0.5, 0, 1)
    t = t * t * (3 - 2 * t)
    return piece, goal + start * (1 - t)[:, None]
