"""Screening of clips in preparation: the checks of `xdub.screen`, and the correction of late or early sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdub.data.clip import Clip
from xdub.data.clip_checks import Rejected
from xdub.screen.check import Footage
from xdub.screen.screen import Screen, missing_sync

if TYPE_CHECKING:
    from xdub.config import Recipe


class ClipScreen:
    """The checks of a recipe, with their networks in memory."""

    def __init__(self, recipe: Recipe) -> None:
        """Load the networks. Raise UserError if weights are missing, other than those of a SyncNet."""
        self._screen = Screen(recipe)
        self._missing = missing_sync(recipe)

    def __call__(self, build: Callable[..., Clip], scores: dict[str, float]) -> tuple[Clip, str]:
        """Return the clip, with its sound moved to the lips, and what could not be checked, in words.

        Args:
            build: builds the clip; its arguments are those of `Preparer.clip_of` after the sound.
            scores: receives every value and bound by name.

        Raises:
            Rejected: the clip fails a check.
        """
        clip = build(scores=scores)
        result = self._screen(Footage(frames=clip.frames, landmarks=clip.landmarks, sound=clip.sound))
        scores |= result.scores
        if (failure := result.failure) is not None:
            assert failure.threshold is not None
            raise Rejected(failure.name, failure.value, failure.threshold, failure.message, scores)
        if result.shift:
            clip = build(shift=result.shift, scores=scores)
            scores["shift"] = float(result.shift)
        return clip, self._missing
