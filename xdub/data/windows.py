"""One training sample from one clip: a pure function of the clip and a random generator.

Frame n of a clip owns the audio features 2n and 2n + 1 (50 Hz). A window of F frames that starts at n0 takes the rows
2 n0 - 4 ... 2 (n0 + F) + 3, so that every latent finds the 16 features around its frames (METHOD, Geometry).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from xdub.data.clip import Clip
from xdub.data.masks import to_latent_mask
from xdub.errors import UserError

GENERATOR = "generator"
FEATURES_PER_FRAME = 2
MARGIN = 4  # feature rows before and after the window
SPAN = 16  # features of one latent


class Encodes(Protocol):
    """What is asked of a codec here."""

    def encode(self, video: Tensor) -> Tensor:
        """[B,3,F,H,W] in [-1,1] -> [B,C,f,h,w]."""


class EncodesAudio(Protocol):
    """What is asked of an audio encoder here."""

    def encode(self, wav: np.ndarray) -> Tensor:
        """[N] at 16 kHz -> [T50, d]."""


def audio_starts(num_latents: int) -> Tensor:
    """int64 [f]: first row of each latent's 16 features, in the slice that `audio_window` cuts: 0, 2, 10, 18, ..."""
    starts = 8 * torch.arange(num_latents) - 6
    starts[0] = 0  # one frame only: the window keeps to the left edge of that frame
    return starts


def audio_window(features: Tensor, start: int, num_frames: int) -> Tensor:
    """Rows [2 F + 8, d] for the frames start ... start + F - 1 of features [T50, d]; zero rows beyond their ends."""
    low = FEATURES_PER_FRAME * start - MARGIN
    high = FEATURES_PER_FRAME * (start + num_frames) + MARGIN
    rows = features.new_zeros(high - low, features.shape[1])
    known = features[max(0, low) : max(0, high)]
    offset = max(0, -low)
    rows[offset : offset + len(known)] = known
    return rows


def to_video(frames: np.ndarray) -> Tensor:
    """uint8 [F,H,W,3] -> float32 [1,3,F,H,W] in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0


def pick_reference(num_frames: int, start: int, window: int, rng: np.random.Generator) -> int:
    """A frame outside the window start ... start + window - 1, or any frame if the window is the whole clip."""
    outside = np.setdiff1d(np.arange(num_frames), np.arange(start, start + window))
    return int(rng.choice(outside if len(outside) else np.arange(num_frames)))


@torch.no_grad()
def make_window(
    clip: Clip,
    *,
    phase: str,
    window: int,
    codec: Encodes,
    audio_encoder: EncodesAudio,
    rng: np.random.Generator,
    audio_features: Tensor | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """One sample: z0, z_ref, audio, starts, face_mask, lip_mask, sample_id, start (and z_mask for the generator).

    Latents are float32 on the CPU. `audio_features` [T50,d] of the whole clip spare encoding its speech once more.
    The generator's reference is one true frame of the clip, the editor's the same window of V'. UserError if the clip
    is shorter than the window, or has no V' in an editor phase.
    """
    count = clip.num_frames
    if window > count:
        raise UserError(f"clip {clip.clip_id} has {count} frames, the {phase} window needs {window}")
    start = int(rng.integers(count - window + 1))
    frames = slice(start, start + window)

    def encode(pixels: np.ndarray, hide: np.ndarray | None = None) -> Tensor:
        video = to_video(pixels)
        if hide is not None:
            video.masked_fill_(torch.from_numpy(hide)[None, None], 0.0)  # mid grey
        return codec.encode(video.to(device))[0].float().cpu().contiguous()

    z0 = encode(clip.frames[frames])
    sample = {"z0": z0}
    if phase == GENERATOR:
        sample["z_mask"] = encode(clip.frames[frames], hide=clip.visible_mask[frames])
        reference = pick_reference(count, start, window, rng)
        sample["z_ref"] = encode(clip.frames[reference : reference + 1])
    elif clip.reference is None:
        raise UserError(
            f"clip {clip.clip_id} has no reference video: phase {phase} trains on pairs (`xdub pairs`)"
        )
    else:
        sample["z_ref"] = encode(clip.reference[frames])
    if audio_features is None:
        audio_features = audio_encoder.encode(clip.audio)
    return sample | {
        "audio": audio_window(audio_features, start, window).float().cpu(),
        "starts": audio_starts(z0.shape[1]),
        "face_mask": to_latent_mask(clip.face_mask[frames]),
        "lip_mask": to_latent_mask(clip.lip_mask[frames]),
        "sample_id": clip.clip_id,
        "start": start,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: the order of its sums, hence every bit, is then the same wherever a window is made."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
