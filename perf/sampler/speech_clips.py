"""Rendered clips with sound around them for training, and held-out heads, of `python -m perf speech_features`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xdub.config import Recipe
from xdub.data.clip import Clip
from xdub.geometry import SAMPLES_PER_FRAME

WINDOW = 25
"""Frames of a clip and of a window."""
FRAME_FIELDS = ("landmarks", "face_mask", "lip_mask", "occluder_mask", "opening")
"""Arrays of a rendered clip with one entry a frame, other than its pixels."""
MARGIN = 10
"""Rendered frames before the first and after the last clip of a recording, of which only the sound is used."""
CLIPS = 3
"""Clips of a recording."""
HEAD_FRAMES = 65
"""Frames of a held-out head: three windows that share 5 frames."""


@dataclass(frozen=True)
class Head:
    """A head outside the training set and its twin, which says the new speech."""

    clip: Clip
    twin: Clip


def render_clips(recipe: Recipe, folder: Path, recordings: int) -> Path:
    """Render recordings and their twins, and cut each into clips; return the data set."""
    from xdub.data.shards import ShardWriter, iter_clips
    from xdub.render.dataset import render_dataset

    frames = 2 * MARGIN + CLIPS * WINDOW
    long = replace(recipe, video=replace(recipe.video, clip_frames=frames + (1 - frames) % 4))
    render_dataset(long, folder / "recordings", clips=recordings)
    with ShardWriter(folder / "clips", kind="clips") as writer:
        for recording in iter_clips(folder / "recordings"):
            for number in range(CLIPS):
                writer.add(cut(recording, MARGIN + number * WINDOW))
    return folder / "clips"


def cut(recording: Clip, start: int) -> Clip:
    """Cut a clip of `WINDOW` frames that keeps up to a second of the recording's sound on either side."""
    from xdub.data.clip import clip_id_of
    from xdub.data.sound import MARGIN_SAMPLES

    frames = slice(start, start + WINDOW)
    begin, end = (SAMPLES_PER_FRAME * number for number in (frames.start, frames.stop))
    audio, pixels = recording.audio, recording.frames[frames]
    source = f"{recording.source}/{start}"
    return replace(
        recording,
        clip_id=clip_id_of(source, pixels, audio[begin:end]),
        source=source,
        frames=pixels,
        audio=audio[begin:end],
        sound_before=audio[max(0, begin - MARGIN_SAMPLES) : begin],
        sound_after=audio[end : end + MARGIN_SAMPLES],
        **{name: getattr(recording, name)[frames] for name in FRAME_FIELDS},
        twin_of=None,
    )


def held_out_heads(recipe: Recipe, count: int) -> list[Head]:
    """Render heads with people, scenes and sentences that no training set may hold."""
    from xdub.render.clips import FIRST_HELD_OUT, TAKES, make_clips

    video, first = recipe.video, FIRST_HELD_OUT
    numbers = range(first, first + count * TAKES, TAKES)
    pairs = make_clips(0, numbers, size=video.size, frames=HEAD_FRAMES, crop_scale=video.crop_scale)
    return [Head(clip=pair.clip, twin=pair.twin) for pair in pairs]


def ceiling(heads: Sequence[Head]) -> float:
    """Return opening_corr of the twins' own frames: the best that the readout allows."""
    from xdub.evaluate.metrics.opening_corr import opening_corr
    from xdub.evaluate.opening import read_opening

    read = [read_opening(head.twin.frames, head.clip.landmarks) for head in heads]
    return opening_corr(read, [opening_of(head.twin) for head in heads]).mean


def opening_of(clip: Clip) -> np.ndarray:
    """Return the true opening [F] of a rendered clip."""
    assert clip.opening is not None
    return clip.opening
