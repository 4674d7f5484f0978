"""`xdub speakers`: the clips of a data set grouped by who speaks, and the clips that repeat the footage of another."""

from xdub.speakers.grouping import SpeakerReport, group_clips

__all__ = ["SpeakerReport", "group_clips"]
