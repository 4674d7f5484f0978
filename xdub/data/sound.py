"""The sound that a window's speech features are computed from: its own, and one second on either side.

An encoder hears beyond the frames of a window: Whisper attends to everything, and log-mel normalises the loudness of
everything. Training, pairs and dubbing therefore all encode exactly this slice, so a window has the same features in
all three, wherever it lies in its clip or video.
"""

from __future__ import annotations

import numpy as np

from xdub.geometry import SAMPLES_PER_FRAME, SOUND_MARGIN
from xdub.media.stored_sound import StoredSound

SILENCE = 1e-10
"""Value of a sample that exists and is silent. Zeros mark samples that do not exist, for example before a recording:
there a mouth may do anything, while silence closes it."""
MARGIN_SAMPLES = SOUND_MARGIN * SAMPLES_PER_FRAME
"""Audio samples of the margin on one side: 16,000."""


def window_samples(num_frames: int) -> int:
    """Return the number of samples of a window's slice: 640 (F + 50)."""
    return (num_frames + 2 * SOUND_MARGIN) * SAMPLES_PER_FRAME


def surrounded(
    audio: np.ndarray, before: np.ndarray | None = None, after: np.ndarray | None = None
) -> np.ndarray:
    """Return float32 [N + 32,000]: sound [N] at 16 kHz between the seconds ``before`` and ``after``, each [<= 16,000].

    Samples that do not exist are zeros, and samples of silence are `SILENCE`.
    """
    empty = np.zeros(0, np.float32)
    before, after = (empty if part is None else part for part in (before, after))
    recorded = np.concatenate([before, audio, after]).astype(np.float32)
    recorded[recorded == 0] = SILENCE
    return np.pad(recorded, (MARGIN_SAMPLES - len(before), MARGIN_SAMPLES - len(after)))


def window_sound(sound: np.ndarray, start: int, num_frames: int) -> np.ndarray:
    """Return float32 [640 (F + 50)]: the slice of the F = num_frames frames from frame ``start`` on.

    ``sound`` has the margins of `surrounded`, so its frame 0 begins at sample 16,000. Samples beyond its ends are
    zeros; ``start`` may be negative.
    """
    length = window_samples(num_frames)
    before = min(length, max(0, -start) * SAMPLES_PER_FRAME)
    part = sound[max(0, start) * SAMPLES_PER_FRAME :][: length - before]
    window = np.zeros(length, np.float32)
    window[before : before + len(part)] = part
    return window


def cut_sound(
    audio: np.ndarray | StoredSound, start: int, frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Cut the sound of ``frames`` frames from frame ``start`` on, which may be negative, out of a wave [N].

    Returns:
        The sound [640 frames], up to a second before and after it, and the share of the frames that the wave covers.
    """
    begin, count = start * SAMPLES_PER_FRAME, frames * SAMPLES_PER_FRAME
    sound = np.zeros(count, np.float32)
    part = audio[max(0, begin) : max(0, begin + count)]
    offset = max(0, -begin)
    sound[offset : offset + len(part)] = part
    before = audio[max(0, begin - MARGIN_SAMPLES) : max(0, begin)]
    end = max(0, begin + count)
    after = audio[end : end + MARGIN_SAMPLES]
    return sound, before, after, len(part) / count
