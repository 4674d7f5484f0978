"""The face embedders that a recipe may name, and the thresholds of the pair filter on their scales."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.errors import UserError

ACCEPT_ALL = -1.0
"""The threshold that turns the identity filter off; it is valid for every embedder."""


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """The scale of an embedder's cosines."""

    threshold: float
    """Lowest mean cosine between V and V' of one person."""
    same_speaker: float
    """Lowest cosine of a clip's mean face with the mean face of its speaker in other recordings."""
    plausible: tuple[float, float]
    """Range of the thresholds that a recipe may set instead.

    A measured range reaches from the mean cosine of different people to that of rendered twins: a lower threshold
    accepts most strangers, and a higher one rejects most true pairs.
    """
    origin: str
    """Data, numbers of pairs, false accepts and false rejects behind the threshold."""


EMBEDDERS = {
    "mobilefacenet": Embedder(
        threshold=0.8,
        same_speaker=0.85,
        plausible=(0.55, 0.96),
        origin="64 rendered people at 64 px: 0.5 % of 384 true pairs rejected, 0.7 % of 48,384 false pairs accepted",
    ),
    "dlib": Embedder(
        threshold=0.96,
        same_speaker=0.98,
        plausible=(0.9, 0.99),
        origin="the same people: 2.3 % of 384 true pairs rejected, 1.6 % of 48,384 false pairs accepted",
    ),
    "arcface": Embedder(
        threshold=0.85,
        same_speaker=0.5,
        plausible=(0.0, 1.0),
        origin="paper B.3, on real people; not measured by us, because its weights are a file of the user",
    ),
}
"""Name in `perception.identity` -> scale. `python -m perf identity` measures the thresholds, see docs/pairs.md."""


def check_threshold(name: str, threshold: float) -> None:
    """Raise UserError for a threshold that is another embedder's, or outside the embedder's plausible range."""
    own = EMBEDDERS[name]
    low, high = own.plausible
    remedy = f"leave the key out (null) for its own {own.threshold:g}, or set {low:g} to {high:g}"
    owner = next((other for other, scale in EMBEDDERS.items() if scale.threshold == threshold), name)
    value = f"pairs.identity_threshold={threshold:g}"
    if name != owner and threshold != own.threshold:
        raise UserError(
            f"{value} is the threshold of {owner}, and perception.identity={name} has another scale: {remedy}"
        )
    if threshold != ACCEPT_ALL and not low <= threshold <= high:
        raise UserError(
            f"{value} is outside the scale of perception.identity={name}: {remedy}, or {ACCEPT_ALL:g} to accept all"
        )
