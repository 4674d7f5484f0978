"""The shapes of one training sample, from the recipe alone (paper B.2, B.3 and 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import Recipe, inpaints


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes of one sample in the backbone: f target and r reference frames of N tokens, and T audio rows."""

    frames: int
    """Video frames of the window."""
    target: int
    """f, latent frames that are denoised."""
    reference: int
    """r, latent frames that condition: 1 for a phase that inpaints, f for one that edits."""
    side: int
    """Latent height and width."""
    per_frame: int
    """N, tokens of one latent frame."""
    audio: int
    """T, rows of audio features."""

    @property
    def total(self) -> int:
        """F = f + r, latent frames of the sequence."""
        return self.target + self.reference

    @property
    def tokens(self) -> int:
        """Length of the sequence of 3D attention."""
        return self.total * self.per_frame


def shapes(recipe: Recipe, phase: str) -> Shapes:
    """Return the sizes of one sample of a phase."""
    window = recipe.phase(phase).window
    geometry = recipe.codec.geometry
    target, side = geometry.latent_frames(window), recipe.video.size // geometry.space
    _, rows, columns = recipe.model.patch
    return Shapes(
        frames=window,
        target=target,
        reference=1 if inpaints(phase) else target,
        side=side,
        per_frame=(side // rows) * (side // columns),
        audio=recipe.speech.count(window),
    )
