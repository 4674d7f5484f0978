"""The interface of all SyncNets: picture and sound of a window as unit vectors, whose cosine measures the match."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from xdub.geometry import SAMPLES_PER_FRAME, SOUND_MARGIN, SYNC_FRAMES

MAX_OFFSET = 15
"""Largest offset of sound and picture, in frames, that is measured; it leaves room in the sound's margins."""


class SyncExpert(nn.Module):
    """A network that embeds windows of mouth and sound; each network computes its own features of the wave.

    Args of all methods:
        frames: face crops [B, 3, F, H, W] in [-1, 1].
        sound: [B, 640 (F + 50)] at 16 kHz, with a second before and after the frames.
        landmarks: [B, F, 68, 2] in crop px; nan where a frame has no face.
    """

    name: str
    frames: int
    """Frames of one visual window."""

    @abstractmethod
    def embed_video(self, frames: Tensor, landmarks: Tensor) -> Tensor:
        """Embed the W windows of a video as unit vectors [B, W, E]."""

    @abstractmethod
    def embed_sound(self, sound: Tensor, around: int = 0) -> Tensor:
        """Embed the windows' sound as unit vectors [B, W + 2 around, E]; entry ``around`` belongs to window 0.

        ``around``: windows beyond either end of the video, at most `MAX_OFFSET`.
        """

    @abstractmethod
    def loss_of(self, cosine: Tensor) -> Tensor:
        """Return the BCE against 1 (Eq. 12 with the usual sign) of cosines of any shape."""

    def cosine(self, frames: Tensor, sound: Tensor, landmarks: Tensor) -> Tensor:
        """Return the cosine [B, W] of picture and sound for every window."""
        check_inputs(frames, sound, landmarks)
        return (self.embed_video(frames, landmarks) * self.embed_sound(sound)).sum(-1)

    def sync_loss(self, frames: Tensor, sound: Tensor, landmarks: Tensor) -> Tensor:
        """Return the loss [B, W] of every window, low where the mouth matches the sound; gradients reach the pixels.

        Raises:
            ValueError: an argument has a wrong shape; the message names it.
        """
        return self.loss_of(self.cosine(frames, sound, landmarks))


def num_frames(sound: Tensor) -> int:
    """Return F of the sound [B, 640 (F + 50)] of a window."""
    return sound.shape[-1] // SAMPLES_PER_FRAME - 2 * SOUND_MARGIN


def audible(sound: Tensor, window: int, around: int = 0) -> Tensor:
    """Return which windows of ``window`` frames have a sound in every frame, bool [B, W + 2 around].

    The entries are those of `SyncExpert.embed_sound`. Samples beyond the ends of a source are zeros, by which even a
    network that ignores the lips would recognise moved sound.
    """
    frames = sound.unflatten(-1, (-1, SAMPLES_PER_FRAME)).abs().amax(-1) > 0
    beyond = SOUND_MARGIN - around
    inside = frames[:, beyond : frames.shape[1] - beyond]
    return inside.unfold(1, min(window, num_frames(sound)), 1).all(-1)


def check_inputs(frames: Tensor, sound: Tensor, landmarks: Tensor) -> None:
    """Raise ValueError for arguments of a wrong shape."""
    if frames.dim() != 5 or frames.shape[1] != 3 or frames.shape[2] < SYNC_FRAMES:
        raise ValueError(f"frames must be [B, 3, F >= {SYNC_FRAMES}, H, W], got {tuple(frames.shape)}")
    batch, count = frames.shape[0], frames.shape[2]
    samples = SAMPLES_PER_FRAME * (count + 2 * SOUND_MARGIN)
    if tuple(sound.shape) != (batch, samples):
        raise ValueError(f"sound must be [{batch}, {samples}], got {tuple(sound.shape)}")
    if tuple(landmarks.shape) != (batch, count, 68, 2):
        raise ValueError(f"landmarks must be [{batch}, {count}, 68, 2], got {tuple(landmarks.shape)}")


def halving_layers(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    """Return layers that map a picture [N, C, H, W] to half its height and width."""
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)
    return conv, nn.GroupNorm(4, channels_out), nn.GELU()
