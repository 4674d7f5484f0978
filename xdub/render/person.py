"""The traits of a rendered person: shape, colours, hair, clothes and voice, drawn from a seed and a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xdub.render.assets import AGES, ANCESTRIES, AXES, BODY_WEIGHTS, BUILD, MACRO, SEXES, SHAPES
from xdub.render.speech import Voice, draw_voice
from xdub.seeding import rng as seeded

HAIR_STYLES = ("shaved", "crop", "short", "volume", "long", "bob", "beanie", "cap", "bald")


@dataclass(frozen=True)
class Person:
    """One person's traits. Colours are linear RGB, shares are 0..1."""

    number: int
    macro: np.ndarray  # weight of each target of MACRO
    build: np.ndarray
    axes: np.ndarray
    shapes: np.ndarray
    feminine: float
    age: float
    skin: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    brow: np.ndarray
    cloth: np.ndarray
    cloth_two: np.ndarray
    cloth_pattern: int
    hat: np.ndarray
    hair_style: str
    glasses: bool
    brow_thick: float
    brow_height: float
    freckles: float
    blush: float
    stubble: float
    shine: float
    makeup: float
    smile: float
    voice: Voice


def _srgb(*rgb: float) -> np.ndarray:
    """Convert display values 0..255 to linear RGB."""
    return (np.asarray(rgb) / 255.0) ** 2.2


SKIN_TONES = [_srgb(233, 198, 176), _srgb(220, 174, 145), _srgb(198, 147, 112), _srgb(160, 109, 77),
              _srgb(118, 76, 52), _srgb(80, 51, 37)]  # fmt: skip
HAIR_TONES = [_srgb(28, 23, 21), _srgb(46, 33, 26), _srgb(78, 52, 36), _srgb(116, 78, 48), _srgb(178, 138, 88),
              _srgb(124, 58, 30), _srgb(150, 146, 142)]  # fmt: skip
EYE_TONES = [_srgb(72, 44, 26), _srgb(96, 62, 34), _srgb(120, 96, 52), _srgb(86, 108, 76), _srgb(92, 124, 152),
             _srgb(112, 124, 134)]  # fmt: skip


def draw_person(seed: int, number: int) -> Person:
    """Draw the traits of the person with this number."""
    rng = seeded("render", seed, "identity", number)
    feminine = float(np.clip(rng.choice([0.12, 0.88]) + rng.normal(0, 0.08), 0, 1))
    age = float(rng.beta(1.1, 2.2) * 0.75)
    ancestry = rng.dirichlet([0.35, 0.35, 0.35])
    macro = np.array(
        [
            ancestry[i] * sex * years
            for i, _ in enumerate(ANCESTRIES)
            for sex in (feminine, 1 - feminine)
            for years in (1 - age, age)
        ]
    )
    heavy = float(np.clip(rng.normal(0, 0.35), -0.7, 0.8))
    weight = {"minweight": max(-heavy, 0), "averageweight": 1 - abs(heavy), "maxweight": max(heavy, 0)}
    build = np.array(
        [
            sex * years * weight[w]
            for sex in (feminine, 1 - feminine)
            for years in (1 - age, age)
            for w in BODY_WEIGHTS
        ]
    )
    assert len(macro) == len(MACRO) and len(build) == len(BUILD) and len(SEXES) == len(AGES) == 2
    axes = np.array([limit for *_, limit in AXES]) * np.clip(rng.normal(0, 0.5, len(AXES)), -1, 1)
    shapes = np.zeros(len(SHAPES))
    shapes[rng.integers(len(SHAPES))] = rng.uniform(0, 0.6)

    light = np.clip(0.15 * ancestry[2] + 0.32 * ancestry[1] + 0.85 * ancestry[0] + rng.normal(0, 0.1), 0, 1)
    skin = _palette(SKIN_TONES, light) * np.exp(rng.normal(0, 0.04, 3))
    lip_tone = np.array([0.92, 0.52, 0.52]) if light < 0.6 else np.array([0.95, 0.66, 0.66])
    makeup = float(np.clip(rng.normal(0.45, 0.3), 0, 1)) * (feminine > 0.5)
    lips = skin * lip_tone
    lips = lips * (1 - 0.55 * makeup) + 0.55 * makeup * rng.uniform(0.55, 1.0) * np.array([0.42, 0.07, 0.09])
    grey = age > 0.45 and rng.uniform() < 0.6
    dark = light > 0.45 or ancestry[1] > 0.5
    tone = 6 if grey else int(rng.integers(0, 2 if dark else 6))
    hair = HAIR_TONES[tone] * np.exp(rng.normal(0, 0.12))
    if feminine > 0.5:
        odds = [0.01, 0.04, 0.14, 0.16, 0.30, 0.22, 0.08, 0.04, 0.01]
    else:
        odds = [0.13, 0.20, 0.30, 0.10, 0.03, 0.02, 0.09, 0.07, 0.06]
    eye = int(rng.integers(0, 2 if dark else 6))
    return Person(
        number=number,
        macro=macro,
        build=build,
        axes=axes,
        shapes=shapes,
        feminine=feminine,
        age=age,
        skin=np.clip(skin, 0.01, 0.95),
        lips=np.clip(lips, 0.01, 0.9),
        iris=EYE_TONES[eye] * np.exp(rng.normal(0, 0.15)),
        hair=hair,
        brow=hair * 0.75 if tone != 6 else hair * 0.5,
        cloth=rng.uniform(0.02, 0.55) * _hue(rng),
        cloth_two=rng.uniform(0.02, 0.7) * _hue(rng),
        cloth_pattern=int(rng.choice([0, 0, 0, 1, 2])),
        hat=rng.uniform(0.02, 0.3) * _hue(rng) ** 0.7,
        hair_style=str(rng.choice(HAIR_STYLES, p=odds)),
        glasses=bool(rng.uniform() < 0.14 + 0.2 * age),
        brow_thick=float(rng.uniform(0.036, 0.056) - 0.010 * (feminine > 0.5)),
        brow_height=float(rng.uniform(-0.012, 0.02)),
        freckles=float(np.clip(rng.normal(0.1, 0.3), 0, 0.9)) * (light < 0.4),
        blush=float(rng.uniform(0.3, 1.0)),
        stubble=float(np.clip(rng.normal(0.25, 0.28), 0, 0.8)) * (feminine < 0.5),
        shine=float(rng.uniform(0.5, 1.1)),
        makeup=makeup,
        smile=float(np.clip(rng.normal(0.08, 0.12), 0, 0.35)),
        voice=draw_voice(rng, feminine),
    )


def _palette(tones: list[np.ndarray], position: float) -> np.ndarray:
    """Interpolate between neighbouring tones on a logarithmic scale; `position` is 0 at the first, 1 at the last."""
    index = position * (len(tones) - 1)
    low = min(int(index), len(tones) - 2)
    return np.exp(np.log(tones[low]) * (1 - (index - low)) + np.log(tones[low + 1]) * (index - low))


def _hue(rng: np.random.Generator) -> np.ndarray:
    """Draw a moderately saturated colour whose brightest channel is 1."""
    colour = rng.uniform(0.25, 1.0, 3) ** 1.3
    return colour / colour.max()
