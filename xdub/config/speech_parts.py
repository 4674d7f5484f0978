"""The two networks of the audio encoder ``whisper+wav2vec2`` in one folder, as released by X-Dub or by transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from xdub.errors import UserError
from xdub.files.content import content_digest

JOINED = "whisper+wav2vec2"
"""Value of `audio.kind`."""
SPEECH_PARTS: Mapping[str, tuple[str, ...]] = {
    "whisper": ("whisper/large-v2.pt", "whisper-large-v2/large-v2.pt", "whisper-large-v2", "whisper"),
    "wav2vec2": ("wav2vec2-base-960h", "wav2vec2"),
}
"""Network -> names of its file or folder in the folder of both; the first that exists is loaded."""


def speech_parts(path: str | Path) -> dict[str, Path]:
    """Return network -> its file or folder. Raise UserError if one is missing."""
    folder, parts = Path(path), dict[str, Path]()
    for network, names in SPEECH_PARTS.items():
        part = next((folder / name for name in names if (folder / name).exists()), None)
        if part is None:
            raise UserError(
                f"audio.kind={JOINED}: {folder} has no {network} ({' or '.join(names)}); put it there, or set "
                "audio.path"
            )
        parts[network] = part
    return parts


def speech_digest(path: str | Path) -> str:
    """Return a digest of both networks; other files of the folder, such as those of X-Dub's editor, do not count."""
    lines = (f"{network} {content_digest(part)}\n" for network, part in speech_parts(path).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
