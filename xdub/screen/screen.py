"""All checks of a clip in the order of their cost: pictures, voice activity, then the offset of sound and lips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from xdub.config import Recipe, network_path
from xdub.errors import UserError
from xdub.perception.syncnet.load import load_sync
from xdub.precision import open_device
from xdub.screen.check import Check, Footage, Measurement
from xdub.screen.offset import OffsetReading, read_offset
from xdub.screen.pictures import picture_checks
from xdub.screen.speech import Speech


@dataclass(frozen=True, kw_only=True)
class Screened:
    """Result of all checks of a clip."""

    scores: dict[str, float] = field(default_factory=dict)
    """Every value by the name of its check, and its bounds under `NAME.least` and `NAME.most`."""
    failure: Measurement | None = None
    """The measurement that rejects the clip."""
    shift: int = 0
    """Frames by which the sound is late, so that the caller cuts it that much later."""
    note: str = ""
    """Check that came to no result, in words."""


class Screen:
    """The checks that a recipe's section ``screen`` selects, with their networks; one object serves many clips."""

    def __init__(self, recipe: Recipe) -> None:
        """Load the networks. Raise UserError if weights are missing, other than those of a SyncNet."""
        config = recipe.screen
        self.config = config
        self.checks: list[Check] = list(picture_checks(config))
        if config.speech is not None:
            self.checks.append(Speech(config.speech))
        measured = config.shift is not None and not missing_sync(recipe)
        self.network = load_sync(recipe.perception).to(open_device()) if measured else None

    def __call__(self, footage: Footage) -> Screened:
        """Run the checks of a clip. Every value is recorded; networks run on clips that pass the cheap checks only."""
        scores: dict[str, float] = {}
        for check in self.checks:
            measured = check.measure(footage)
            scores |= all_scores(measured)
            if (failure := next((one for one in measured if not one.passed), None)) is not None:
                return Screened(scores=scores, failure=failure)
        if self.network is None or self.config.shift is None:
            return Screened(scores=scores)
        reading = read_offset(self.network, footage)
        offset, confidence = self._offset(reading)
        scores |= all_scores([offset, confidence])
        failure = next((one for one in (confidence, offset) if not one.passed), None)
        if reading.confidence < self.config.offset_confidence:
            note = f"no offset of sound and lips stands out ({reading.confidence:.1f} deviations)"
            return Screened(scores=scores, failure=failure, note=note)
        return Screened(scores=scores, failure=failure, shift=0 if failure else reading.offset)

    def _offset(self, reading: OffsetReading) -> tuple[Measurement, Measurement]:
        """Return the offset and its confidence; an offset without confidence rejects no clip by itself."""
        assert self.config.shift is not None
        needed = self.config.offset_confidence
        confident = reading.confidence >= needed
        most = float(self.config.shift)
        offset = Measurement(
            name="offset",
            value=float(reading.offset),
            least=-most if confident else None,
            most=most if confident else None,
            message=f"the sound is {abs(reading.offset)} frames {'late' if reading.offset > 0 else 'early'}; "
            f"at most {most:.0f} are corrected",
        )
        confidence = Measurement(
            name="offset_confidence",
            value=reading.confidence,
            least=needed if self.config.require_sync else None,
            message="sound and lips do not match at any offset",
        )
        return offset, confidence


def all_scores(measured: Iterable[Measurement]) -> dict[str, float]:
    """Return the scores of several measurements in one mapping."""
    return {name: value for one in measured for name, value in one.scores().items()}


def missing_sync(recipe: Recipe) -> str:
    """Return why the offset of sound and lips cannot be measured, with the command that helps; empty if it can.

    Only the file is looked up here, so that the reason is known before the first video is read.
    """
    if recipe.screen.shift is None:
        return ""
    try:
        path = network_path(recipe.perception, "sync")
    except UserError as error:
        return f"sound and lips are not compared: {error}"
    if path is not None and not Path(path).is_file():
        return f"sound and lips are not compared: {path}: no such file; train a SyncNet with `xdub train syncnet`"
    return ""
