"""Rates and window sizes that every part shares; factors of time and space belong to the codec (paper B.2, B.6)."""

from __future__ import annotations

FPS = 25
"""Frames a second of every clip, window and dubbed video."""
SAMPLE_RATE = 16_000
"""Audio samples a second."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
"""Audio samples of one video frame: 640."""
ROWS_PER_FRAME = 2
"""Rows of audio features of one video frame: every encoder gives 50 a second."""
AUDIO_WINDOW = 16
"""Rows of audio features that one latent frame attends to."""
AUDIO_MARGIN = 4
"""Rows of audio features that a training window carries before its first and after its last frame."""
