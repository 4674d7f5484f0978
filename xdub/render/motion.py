"""A head's motion besides speech: pose, gaze, blinks and brows, drawn independently of the speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.geometry import FPS


@dataclass(frozen=True)
class Motion:
    """Motion of F frames. Yaw stays within 25 degrees, pitch within 12, roll within 8."""

    turn: np.ndarray  # [F,3,3] rotation
    shift: np.ndarray  # [F,3] decimetres
    gaze: np.ndarray  # [F,3] unit, in the head's frame
    curves: dict[str, np.ndarray]  # ARKit units of lids and brows, [F]


def rotation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Compute matrices [F,3,3] of angles [F] in degrees: roll, then pitch, then yaw.

    Yaw turns about y; positive values turn to the picture's right.
    """
    a, b, c = (np.radians(np.asarray(x, float)) for x in (yaw, pitch, roll))
    zero, one = np.zeros_like(a), np.ones_like(a)
    ry = np.array([[np.cos(a), zero, np.sin(a)], [zero, one, zero], [-np.sin(a), zero, np.cos(a)]])
    rx = np.array([[one, zero, zero], [zero, np.cos(b), -np.sin(b)], [zero, np.sin(b), np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), zero], [np.sin(c), np.cos(c), zero], [zero, zero, one]])
    return np.einsum("ijf,jkf,klf->fil", ry, rx, rz)


def _sway(
    rng: np.random.Generator, time: np.ndarray, slowest: float = 0.08, fastest: float = 0.7
) -> np.ndarray:
    """Draw smooth wandering in [-1, 1]: a sum of four sinusoids, with larger amplitudes for slower ones."""
    rates = rng.uniform(slowest, fastest, 4)
    sizes = rng.uniform(0.3, 1.0, 4) / (1 + 3 * rates)
    phases = rng.uniform(0, 2 * np.pi, 4)
    waves = sizes[:, None] * np.sin(2 * np.pi * rates[:, None] * time[None] + phases[:, None])
    return waves.sum(0) / sizes.sum()


def _bump(time: np.ndarray, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
    """Compute a smooth pulse from 0 to 1 and back that begins at `start`. All times are in seconds."""
    t = time - start
    up = np.clip(t / rise, 0, 1)
    down = np.clip((t - rise - hold) / fall, 0, 1)
    return up * up * (3 - 2 * up) * (1 - down * down * (3 - 2 * down))


def draw_motion(rng: np.random.Generator, frames: int, smile: float) -> Motion:
    """Draw random motion of `frames` frames; `smile` is the person's resting expression."""
    time = (np.arange(frames) + 0.5) / FPS
    lively = rng.uniform(0.25, 1.0)
    yaw = np.clip(rng.normal(0, 9) + 9 * lively * _sway(rng, time), -25, 25)
    pitch = np.clip(rng.normal(0, 3.5) + 5 * lively * _sway(rng, time), -12, 12)
    roll = np.clip(rng.normal(0, 2.5) + 3 * lively * _sway(rng, time), -8, 8)
    shift = np.stack([0.10 * _sway(rng, time), 0.06 * _sway(rng, time), 0.10 * _sway(rng, time)], 1)
    turn = rotation(yaw, pitch, roll)

    # The share of the head's turn that the eyes make up for by looking at the camera.
    steady = rng.uniform(0.5, 1.0)
    glance = np.stack([rng.normal(0, 0.06) + np.zeros(frames), rng.normal(0, 0.03) + np.zeros(frames)], 1)
    jump_time = rng.uniform(0.3, max(0.4, time[-1]))
    glance += np.where(time > jump_time, 1.0, 0.0)[:, None] * rng.normal(0, 0.07, 2)
    camera = turn.transpose(0, 2, 1) @ np.array([0.0, 0.0, 1.0])
    gaze = steady * camera[:, :2] + glance
    gaze = np.clip(gaze, [-0.42, -0.25], [0.42, 0.22])
    gaze = np.concatenate([gaze, np.sqrt(1 - (gaze**2).sum(1, keepdims=True))], 1)

    blink = np.zeros(frames)
    blink_time = rng.uniform(-0.2, 2.5)
    while blink_time < time[-1] + 0.2:
        blink = np.maximum(blink, _bump(time, blink_time, 0.07, 0.03, 0.13))
        blink_time += rng.uniform(1.2, 4.5)
    resting, height = max(0.0, rng.normal(0.05, 0.2)), 0.6 * rng.uniform(0, 1)
    raised = resting + height * _bump(time, rng.uniform(-0.5, 3), 0.25, 0.4, 0.4)
    lowered = float(np.clip(rng.normal(0, 0.2), 0, 0.5))
    down = np.clip(-gaze[:, 1] * 2.2, 0, 1)
    up = np.clip(gaze[:, 1] * 2.0, 0, 1)
    hold = np.ones(frames)
    curves = {
        "eyeBlinkLeft": blink,
        "eyeBlinkRight": blink,
        "eyeLookDownLeft": down,
        "eyeLookDownRight": down,
        "eyeLookUpLeft": up,
        "eyeLookUpRight": up,
        "browInnerUp": np.clip(raised, 0, 1),
        "browOuterUpLeft": np.clip(0.8 * raised, 0, 1),
        "browOuterUpRight": np.clip(0.8 * raised, 0, 1),
        "browDownLeft": lowered * hold,
        "browDownRight": lowered * hold,
        "mouthSmileLeft": smile * hold,
        "mouthSmileRight": smile * hold,
        "cheekSquintLeft": 0.6 * smile * hold,
        "cheekSquintRight": 0.6 * smile * hold,
    }
    return Motion(turn, shift, gaze, curves)
