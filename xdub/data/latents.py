"""Latents and audio features of a batch; only this module runs codec and audio encoder in training.

Streams yield uint8 pixels and sound. Each training rank computes latents and features on its own device, so a Wan VAE
and a Whisper run on the GPU, and the linear codec of the tiny recipe on the CPU, with the same code. `xdub encode`
calls the same functions once for each window, and its streams yield latents and features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from xdub.data.batch import Batch, RawBatch
from xdub.data.recording import SAMPLES_PER_ROW, EncodesAudio, Recording
from xdub.geometry import ROWS_PER_FRAME, SAMPLES_PER_FRAME, SOUND_MARGIN, CodecGeometry
from xdub.precision import one_thread
from xdub.speech_windows import SpeechForm, SpeechWindows, speech_windows


class Encodes(Protocol):
    """The part of a codec that training uses."""

    machine_independent: bool

    @property
    def geometry(self) -> CodecGeometry:
        """Channels and factors of the latents."""

    def encode(self, video: Tensor) -> Tensor:
        """Encode [B,3,F,H,W] in [-1,1] as [B,C,f,h,w]."""


class Encoding(NamedTuple):
    """One video that is to be encoded."""

    compute: Callable[[], Tensor]
    """Return the latents [C, f, h, w], float32."""
    shape: tuple[int, int, int, int]
    """Their shape."""


LATENTS = ("z0", "z_ref", "z_mask", "audio")
"""Fields of a batch that are encoded, or read from a cache."""
MOVED = (
    "landmarks",
    "sound",
    "face_mask",
    "lip_mask",
    "starts",
    "epochs",
    "positions",
    "window_starts",
)
"""Arrays of a batch that are moved to the device as they are."""
ComputeAll = Callable[[Sequence[Encoding]], list[Tensor]]
"""Encodings -> their latents, in order; ranks that share samples divide the work (`SequenceGroup.compute`)."""


def one_by_one(encodings: Sequence[Encoding]) -> list[Tensor]:
    """Compute all latents on this rank."""
    return [encoding.compute() for encoding in encodings]


def window_features(audio_encoder: EncodesAudio, sound: np.ndarray, windows: SpeechWindows) -> Tensor:
    """Encode the sound [640 (F + 50)] of a window and a second on either side as the window's float32 rows [T, d].

    Training computes features only by this function, and so do pairs and dubs of a network that reads `frames`; the
    sound is a slice of `xdub.data.sound`. Windows are encoded one at a time, so their bits do not depend on their
    neighbours in a batch. Rows beyond the ends of a recording, where no sound exists, are zeros, or repeat the first or
    last row, as ``windows`` decides.
    """
    if windows.repeats_ends:
        return Recording(audio_encoder, sound, windows).window(
            0, len(sound) // SAMPLES_PER_FRAME - 2 * SOUND_MARGIN
        )
    with one_thread(enabled=audio_encoder.machine_independent):
        rows = audio_encoder.encode(sound).float()
    exists = torch.from_numpy(sound).view(-1, SAMPLES_PER_ROW).any(1)
    rows = rows * exists[:, None].to(rows.device)
    margin = ROWS_PER_FRAME * SOUND_MARGIN
    return rows[margin - windows.before : len(rows) - margin + windows.after]


def to_video(frames: np.ndarray | Tensor) -> Tensor:
    """Convert uint8 [F,H,W,3] to float32 [1,3,F,H,W] in [-1,1], on the same device."""
    if isinstance(frames, np.ndarray):
        frames = torch.from_numpy(np.ascontiguousarray(frames))
    return frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0


@torch.no_grad()
def encode_batch(
    raw: RawBatch,
    codec: Encodes,
    audio_encoder: EncodesAudio | None,
    device: torch.device | str,
    *,
    speech: SpeechForm = "frames",
    compute_all: ComputeAll = one_by_one,
) -> Batch:
    """Move a stream's batch to `device`, with latents in place of pixels and the features of the sound.

    Cached latents and features are only moved and converted to float32, so they need no audio encoder.

    Samples are encoded one at a time, so a sample's bits do not depend on its neighbours, and memory does not grow with
    the batch. On a CPU, an encoder that promises the same bits on every machine runs on one thread; a network uses all
    threads of the worker.
    """

    def moved(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    if "z0" in raw:
        latents = {name: stored_latents(raw[name], device) for name in LATENTS if name in raw}
    else:
        assert audio_encoder is not None, "a batch of pixels has sound to encode"
        latents = _computed(
            raw, codec, audio_encoder, torch.device(device), speech=speech, compute_all=compute_all
        )
    arrays = {name: moved(raw[name]) for name in MOVED if name in raw}
    others = {name: raw[name] for name in ("sample_id", "epoch", "bad")}
    return cast(Batch, latents | arrays | others)


def stored_latents(array: np.ndarray, device: torch.device | str) -> Tensor:
    """Convert an array of a cache to float32 on a device: float32, or uint16 with the bits of bf16."""
    if array.dtype != np.uint16:
        return torch.from_numpy(array).to(device, non_blocking=True)
    return torch.from_numpy(array.view(np.int16)).to(device, non_blocking=True).view(torch.bfloat16).float()


def _computed(
    raw: RawBatch,
    codec: Encodes,
    audio_encoder: EncodesAudio,
    device: torch.device,
    *,
    speech: SpeechForm,
    compute_all: ComputeAll,
) -> dict[str, Tensor]:
    """Encode the videos and the sound of a batch of pixels."""

    def moved(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    frames, reference = moved(raw["frames"]), moved(raw["reference"])
    hidden = moved(raw["hidden"]) if "hidden" in raw else None
    # References may be single frames, so the expensive videos come first.
    encodings = [_encoding(codec, video) for video in frames]
    if hidden is not None:
        encodings += [_encoding(codec, video, hide) for video, hide in zip(frames, hidden, strict=True)]
    encodings += [_encoding(codec, video) for video in reference]
    with one_thread(enabled=device.type == "cpu" and codec.machine_independent):
        latents, count = compute_all(encodings), len(frames)
    windows = speech_windows(speech, codec.geometry)
    audio = [window_features(audio_encoder, sound, windows) for sound in raw["sound"]]
    batch = {
        "z0": torch.stack(latents[:count]).contiguous(),
        "z_ref": torch.stack(latents[-count:]).contiguous(),
        "audio": torch.stack(audio).to(device),
    }
    if hidden is not None:
        batch["z_mask"] = torch.stack(latents[count:-count]).contiguous()
    return batch


def encode_video(codec: Encodes, frames: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Encode a video, uint8 [F, H, W, 3], as float32 [C, f, h, w]; pixels in bool ``hidden`` [F, H, W] are grey."""
    video = to_video(frames)
    if hidden is not None:
        video = video.masked_fill(hidden[None, None], 0.0)
    return codec.encode(video)[0].float()


def _encoding(codec: Encodes, frames: Tensor, hidden: Tensor | None = None) -> Encoding:
    """Return the encoding of a video, see `encode_video`."""
    count, height, width, _ = frames.shape
    channels, space = codec.geometry.channels, codec.geometry.space
    shape = (channels, codec.geometry.latent_frames(count), height // space, width // space)
    return Encoding(lambda: encode_video(codec, frames, hidden), shape)
