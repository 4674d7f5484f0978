"""Check that a clip holds speech, by Silero's voice activity."""

from __future__ import annotations

from xdub.perception.voice_activity import VoiceActivity
from xdub.screen.check import Footage, Measurement, middle

SPEECH = 0.5
"""Probability from which a frame counts as speech; Silero's own threshold."""


class Speech:
    """Share of a clip's frames in which somebody speaks; music, noise and applause are no speech."""

    unit = "share"

    def __init__(self, least: float) -> None:
        """Load the network. Raise UserError if its weights are missing."""
        self.least = least
        self.network = VoiceActivity.load()

    def measure(self, footage: Footage) -> list[Measurement]:
        """Measure the share; the second before the clip prepares the network's state."""
        share = float((middle(self.network.probabilities(footage.sound)) >= SPEECH).mean())
        message = f"speech in {share:.0%} of the frames; {self.least:.0%} needed"
        return [Measurement(name="speech", value=share, least=self.least, message=message)]
