"""Phones for the synthesiser and the lips: about forty English-like phones and silence, with our own numbers.

Formants are in Hz for a neutral tract; lip channels are 0..1. The jaw of a vowel follows its first formant, as in real
speech, so the sound predicts the picture.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phone:
    """Targets of one phone. `weight` is the strength of its jaw and lips against those of its neighbours."""

    name: str
    formants: tuple[float, float, float]
    ms: float
    voice: float = 1.0  # amplitude of the voiced source
    noise: float = 0.0  # amplitude of the noise source
    band: tuple[float, float] = (2500.0, 2000.0)  # centre and width of the noise, Hz
    jaw: float = 0.1
    funnel: float = 0.0
    pucker: float = 0.0
    stretch: float = 0.0
    close: float = 0.0  # lips pressed together
    bite: float = 0.0  # lower lip at the upper teeth
    tongue: float = 0.0
    weight: float = 1.0
    nasal: float = 0.0
    then: str = ""  # second half of a diphthong or affricate, or the burst of a plosive


# fmt: off
_ALL = (
    Phone("iy", (280, 2300, 3000), 130, jaw=0.12, stretch=0.85),
    Phone("ih", (390, 2000, 2600), 100, jaw=0.24, stretch=0.5),
    Phone("eh", (540, 1850, 2500), 115, jaw=0.46, stretch=0.4),
    Phone("ae", (690, 1700, 2450), 145, jaw=0.70, stretch=0.45),
    Phone("aa", (760, 1150, 2500), 150, jaw=0.95),
    Phone("ah", (640, 1250, 2450), 110, jaw=0.62),
    Phone("ao", (570, 850, 2450), 145, jaw=0.62, funnel=0.75, pucker=0.1),
    Phone("uh", (430, 1050, 2300), 100, jaw=0.26, funnel=0.55, pucker=0.3),
    Phone("uw", (310, 850, 2250), 135, jaw=0.10, funnel=0.35, pucker=0.95),
    Phone("er", (480, 1300, 1650), 130, jaw=0.28, funnel=0.45, pucker=0.15),
    Phone("ax", (500, 1450, 2450), 70, jaw=0.30, weight=0.6),
    Phone("ey", (480, 2000, 2600), 90, jaw=0.40, stretch=0.5, then="iy"),
    Phone("ay", (740, 1250, 2500), 110, jaw=0.90, then="ih"),
    Phone("oy", (550, 850, 2400), 105, jaw=0.55, funnel=0.75, then="ih"),
    Phone("aw", (740, 1250, 2500), 110, jaw=0.90, then="uh"),
    Phone("ow", (500, 900, 2350), 100, jaw=0.45, funnel=0.7, pucker=0.25, then="uw"),
    Phone("m", (260, 1100, 2200), 90, voice=0.42, jaw=0.05, close=1.0, nasal=1.0, weight=1.6),
    Phone("n", (280, 1600, 2500), 75, voice=0.42, jaw=0.14, nasal=1.0, weight=0.5),
    Phone("ng", (280, 2000, 2600), 80, voice=0.40, jaw=0.18, nasal=1.0, weight=0.4),
    Phone("p", (350, 900, 2200), 95, voice=0.0, jaw=0.05, close=1.0, weight=1.6, then="p2"),
    Phone("p2", (400, 900, 2200), 22, voice=0.0, noise=0.5, band=(900, 900), jaw=0.12, weight=0.5),
    Phone("b", (300, 900, 2200), 90, voice=0.12, jaw=0.05, close=1.0, weight=1.6, then="b2"),
    Phone("b2", (350, 900, 2200), 14, voice=0.5, noise=0.25, band=(800, 800), jaw=0.12, weight=0.5),
    Phone("t", (350, 1800, 2700), 65, voice=0.0, jaw=0.10, tongue=0.3, weight=0.5, then="t2"),
    Phone("t2", (350, 1800, 2700), 28, voice=0.0, noise=0.6, band=(4200, 2200), jaw=0.12, weight=0.4),
    Phone("d", (320, 1800, 2700), 60, voice=0.12, jaw=0.12, tongue=0.3, weight=0.5, then="d2"),
    Phone("d2", (350, 1800, 2700), 16, voice=0.5, noise=0.3, band=(3800, 2200), jaw=0.15, weight=0.4),
    Phone("k", (350, 2000, 2400), 70, voice=0.0, jaw=0.16, weight=0.35, then="k2"),
    Phone("k2", (350, 2000, 2400), 30, voice=0.0, noise=0.5, band=(1900, 900), jaw=0.2, weight=0.3),
    Phone("g", (320, 2000, 2400), 62, voice=0.12, jaw=0.16, weight=0.35, then="g2"),
    Phone("g2", (350, 2000, 2400), 18, voice=0.5, noise=0.25, band=(1800, 900), jaw=0.2, weight=0.3),
    Phone("f", (350, 1100, 2300), 100, voice=0.0, noise=0.22, band=(5200, 5200), jaw=0.08, bite=1.0, weight=1.4),
    Phone("v", (300, 1100, 2300), 75, voice=0.35, noise=0.10, band=(4800, 4800), jaw=0.08, bite=1.0, weight=1.4),
    Phone("th", (350, 1400, 2600), 90, voice=0.0, noise=0.15, band=(6000, 4500), jaw=0.14, tongue=1.0, weight=0.9),
    Phone("dh", (300, 1400, 2600), 60, voice=0.4, noise=0.06, band=(5500, 4500), jaw=0.14, tongue=0.9, weight=0.8),
    Phone("s", (350, 1700, 2600), 105, voice=0.0, noise=0.55, band=(6000, 2200), jaw=0.04, stretch=0.5, weight=1.0),
    Phone("z", (300, 1700, 2600), 80, voice=0.3, noise=0.32, band=(5800, 2200), jaw=0.04, stretch=0.5, weight=1.0),
    Phone("sh", (350, 1800, 2500), 110, voice=0.0, noise=0.6, band=(3300, 1500), jaw=0.06, funnel=0.85, weight=1.1),
    Phone("zh", (300, 1800, 2500), 80, voice=0.3, noise=0.35, band=(3200, 1500), jaw=0.06, funnel=0.85, weight=1.1),
    Phone("ch", (350, 1800, 2500), 50, voice=0.0, jaw=0.08, funnel=0.6, then="sh"),
    Phone("jh", (320, 1800, 2500), 45, voice=0.12, jaw=0.08, funnel=0.6, then="zh"),
    Phone("hh", (500, 1500, 2500), 65, voice=0.0, noise=0.2, band=(1800, 2500), jaw=0.35, weight=0.2),
    Phone("w", (310, 750, 2250), 75, voice=0.7, jaw=0.08, funnel=0.3, pucker=1.0, weight=1.2),
    Phone("r", (340, 1200, 1600), 70, voice=0.7, jaw=0.14, funnel=0.5, pucker=0.15, weight=0.7),
    Phone("l", (360, 1200, 2700), 70, voice=0.7, jaw=0.20, tongue=0.5, weight=0.5),
    Phone("y", (280, 2250, 2950), 60, voice=0.7, jaw=0.10, stretch=0.6, weight=0.7),
    Phone("sil", (450, 1450, 2450), 200, voice=0.0, jaw=0.0, close=0.45, weight=1.3),
)
# fmt: on
PHONES = {phone.name: phone for phone in _ALL}
"""Every phone by name."""
VOWELS = ("iy", "ih", "eh", "ae", "aa", "ah", "ao", "uh", "uw", "er", "ax", "ey", "ay", "oy", "aw", "ow")
ONSETS = tuple("m n p b t d k g f v th dh s z sh zh ch jh hh w r l y m b p f w".split()) + ("",) * 3
"""Consonants before a vowel. The lips' own sounds stand twice, so they are drawn more often."""
CLUSTERS = (("s", "t"), ("s", "p"), ("p", "l"), ("b", "r"), ("k", "w"), ("t", "r"), ("f", "l"), ("g", "r"))
"""Pairs of consonants before a vowel."""
CODAS = ("",) * 16 + tuple("m n ng p t k d s z f v l r b".split())
"""Consonants after a vowel, mostly none."""
