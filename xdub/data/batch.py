"""Batches of training: pixels or cached latents as a stream yields them, latents and features as a model reads them.

Sizes: B samples, F frames, f latent frames, C channels, H x W pixels, h x w latents, d audio features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

from xdub.data.quarantine import BadRow

if TYPE_CHECKING:
    # Processes that read data do not import torch.
    import numpy as np
    from torch import Tensor


class RawBatch(TypedDict):
    """Samples of one rank as NumPy arrays, written by `xdub.data.samples.collate`.

    A phase that trains on cached latents has `z0`, `z_ref`, `z_mask` and `audio` in place of pixels.
    """

    frames: NotRequired[np.ndarray]
    """Target, uint8 [B, F, H, W, 3]."""
    reference: NotRequired[np.ndarray]
    """Reference, uint8 [B, 1 or F, H, W, 3]; only in a phase of the model."""
    z0: NotRequired[np.ndarray]
    """Cached latents of the target: as in `Batch`, float32 or uint16, the bits of bf16."""
    z_ref: NotRequired[np.ndarray]
    """Cached latents of the reference, alike."""
    z_mask: NotRequired[np.ndarray]
    """Cached latents of the target with hidden pixels grey, alike."""
    audio: NotRequired[np.ndarray]
    """Cached features of the window and its margins, alike."""
    hidden: NotRequired[np.ndarray]
    """Pixels of `frames` that the model must not see, bool [B, F, H, W]; only in a phase that inpaints."""
    landmarks: NotRequired[np.ndarray]
    """Landmarks of the target frames in crop px, float32 [B, F, 68, 2]; nan without a face. Cached latents of a phase
    that inpaints come without landmarks and sound."""
    face_mask: np.ndarray
    """Float32 [B, 1, f, h, w]."""
    lip_mask: np.ndarray
    """Float32 [B, 1, f, h, w]."""
    starts: np.ndarray
    """First audio row of every latent frame, int64 [f], the same for all samples."""
    sound: NotRequired[np.ndarray]
    """Sound of every window and a second on either side, float32 [B, 640 (F + 50)] at 16 kHz."""
    sample_id: list[str]
    epochs: np.ndarray
    """Int64 [B]."""
    epoch: int
    """Epoch of the first sample."""
    positions: np.ndarray
    """Positions in the order of the data, int64 [B]."""
    window_starts: np.ndarray
    """First frame of every sample in its clip, int64 [B]."""
    bad: dict[str, BadRow]
    """Rows of unreadable clips, which were replaced by other clips, by clip id."""


class Samples(TypedDict):
    """Identity of the samples of one rank."""

    sample_id: list[str]
    epochs: Tensor
    """Int64 [B]."""
    bad: dict[str, BadRow]
    """Rows of unreadable clips, which were replaced by other clips, by clip id."""


class SyncBatch(Samples):
    """Samples of a SyncNet on its device, written by `xdub.train.syncnet_batch.encode_sync_batch`."""

    patches: Tensor
    """Lower faces in [-1, 1], float32 [B, F, 3, s, s]."""
    sound: Tensor
    """Sound of every window and a second on either side, float32 [B, 640 (F + 50)] at 16 kHz."""


class Batch(Samples):
    """Samples of one rank on its device, written by `xdub.data.latents.encode_batch`; latents are float32."""

    z0: Tensor
    """Latents of the target, [B, C, f, h, w]."""
    z_ref: Tensor
    """Latents of the reference, [B, C, 1 or f, h, w]."""
    z_mask: NotRequired[Tensor]
    """Latents of the target with the hidden pixels grey, [B, C, f, h, w]; only in a phase that inpaints."""
    audio: Tensor
    """Features of the window and its margins, float32 [B, T, d] (`xdub.speech_windows`)."""
    landmarks: NotRequired[Tensor]
    """Landmarks of the target frames in crop px, float32 [B, F, 68, 2]; nan without a face. A generator that trains on
    cached latents has neither landmarks nor sound."""
    sound: NotRequired[Tensor]
    """Sound of every window and a second on either side, float32 [B, 640 (F + 50)] at 16 kHz."""
    face_mask: Tensor
    """Float32 [B, 1, f, h, w]."""
    lip_mask: Tensor
    """Float32 [B, 1, f, h, w]."""
    starts: Tensor
    """First audio row of every latent frame, int64 [f]."""
    epoch: int
    """Epoch of the first sample."""
    positions: Tensor
    """Positions in the order of the data, int64 [B]."""
    window_starts: Tensor
    """First frame of every sample in its clip, int64 [B]."""
