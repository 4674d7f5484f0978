"""Speech features of a whole recording, from which the windows of the published editors are cut.

The encoders of these editors hear a whole recording at once: Whisper's dynamic range ends 8 below the recording's
loudest value, and wav2vec2 and HuBERT normalise the recording's wave and attend to all of it. Dubs therefore cut
windows from the features of the whole speech. Training has only the sound of a clip, so it treats the sound of a window
and of a second on either side as the recording; the features of the two differ where more distant sound matters.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from xdub.geometry import ROWS_PER_FRAME, SAMPLES_PER_FRAME, SOUND_MARGIN
from xdub.precision import one_thread
from xdub.speech_windows import SpeechWindows

SAMPLES_PER_ROW = SAMPLES_PER_FRAME // ROWS_PER_FRAME
"""Audio samples of one row of features: 320."""


class EncodesAudio(Protocol):
    """The part of an audio encoder that training uses."""

    machine_independent: bool

    def encode(self, wav: np.ndarray) -> Tensor:
        """Encode [N] at 16 kHz as [T50, d], 50 rows a second."""


class ReadsRows(Protocol):
    """Rows of a recording's features, of which only those near the last rows read are kept."""

    count: int
    """Number of rows; at least 1."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return float32 [stop - start, d], the rows start ... stop - 1."""


@runtime_checkable
class OpensRecordings(Protocol):
    """An audio encoder that computes the features of a long recording in parts, so memory does not grow with it."""

    def open(self, wav: np.ndarray, *, ended: bool) -> ReadsRows:
        """Return the rows of a recording [N] at 16 kHz. ``ended``: no sound follows the last sample."""


class _EncodedRows:
    """Rows that were all computed at once."""

    def __init__(self, rows: Tensor) -> None:
        self._rows, self.count = rows, len(rows)

    def read(self, start: int, stop: int) -> Tensor:
        return self._rows[start:stop]


class Recording:
    """Features of one recording, of which windows are cut; a row beyond its ends repeats its first or last row."""

    def __init__(self, audio_encoder: EncodesAudio, sound: np.ndarray, windows: SpeechWindows) -> None:
        """Open the recording within ``sound``, which has the margins of `xdub.data.sound.surrounded`.

        Zeros around the recording are no sound. If all samples are zeros, they count as silence.
        """
        exists = sound != 0
        first, stop = (
            (int(exists.argmax()), len(sound) - int(exists[::-1].argmax()))
            if exists.any()
            else (0, len(sound))
        )
        row = first // SAMPLES_PER_ROW
        self._windows = windows
        # Row 0 is that of the frame behind the margin.
        self._first_row = row - ROWS_PER_FRAME * SOUND_MARGIN
        wav, ended = sound[row * SAMPLES_PER_ROW : stop], stop < len(sound)
        self._one_thread = audio_encoder.machine_independent
        with one_thread(enabled=self._one_thread):
            if isinstance(audio_encoder, OpensRecordings):
                self._rows: ReadsRows = audio_encoder.open(wav, ended=ended)
            else:
                self._rows = _EncodedRows(audio_encoder.encode(wav).float())

    def window(self, start: int, num_frames: int) -> Tensor:
        """Return float32 [T, d], the rows of the window of ``num_frames`` frames from frame ``start`` on.

        ``start`` counts from the frame behind the margin of the sound, and may be negative.
        """
        numbers = torch.arange(self._windows.count(num_frames)) + self._windows.first_row(start)
        rows = (numbers - self._first_row).clamp(0, self._rows.count - 1)
        low, high = int(rows[0]), int(rows[-1]) + 1
        with one_thread(enabled=self._one_thread):
            read = self._rows.read(low, high)
        return read[(rows - low).to(read.device)]
