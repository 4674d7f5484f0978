"""Flow-matching training: noising, and the face- and lip-weighted loss that leaves motion frames out."""

from __future__ import annotations

import torch
from torch import Tensor

from xdub_kernels.dispatch import check_device, check_floating, check_integers, check_like, choose
from xdub_kernels.flow_loss import op, reference

__all__ = ["add_noise", "weighted_flow_loss"]


def _motion_frames(motion_frames: int | Tensor, z: Tensor) -> Tensor:
    """Return ``motion_frames`` as int64 [B] on z's device."""
    batch = z.shape[0]
    if isinstance(motion_frames, int) and not isinstance(motion_frames, bool):
        if not 0 <= motion_frames <= z.shape[2]:
            raise ValueError(f"motion_frames must be between 0 and f = {z.shape[2]}, got {motion_frames}")
        return torch.full((batch,), motion_frames, dtype=torch.int64, device=z.device)
    if isinstance(motion_frames, bool):
        raise ValueError("motion_frames must be an integer tensor, got bool")
    check_integers("motion_frames", motion_frames)
    if motion_frames.shape != (batch,):
        raise ValueError(
            f"motion_frames must be an int or [B] = [{batch}], got shape {tuple(motion_frames.shape)}"
        )
    return motion_frames.to(z.device, torch.int64).clamp(0, z.shape[2]).contiguous()


def _check_mask(name: str, mask: Tensor, v_hat: Tensor) -> None:
    expected = (v_hat.shape[0], 1, *v_hat.shape[2:])
    if not isinstance(mask, Tensor):
        raise ValueError(f"{name} must be a tensor [B, 1, f, h, w], got {type(mask).__name__}")
    if tuple(mask.shape) != expected:
        raise ValueError(f"{name} must be [B, 1, f, h, w] = {expected}, got {tuple(mask.shape)}")
    if not (mask.dtype.is_floating_point or mask.dtype == torch.bool):
        raise ValueError(f"{name} must be floating point or bool, got {mask.dtype}")
    check_device(name, mask, "v_hat", v_hat)


def _check_latents(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    check_floating(name, x, "B C f h w")
    if x.shape != other.shape:
        raise ValueError(f"{name} must have {other_name}'s shape {tuple(other.shape)}, got {tuple(x.shape)}")
    check_device(name, x, other_name, other)


def add_noise(
    z0: Tensor, eps: Tensor, t: Tensor, *, motion_frames: int | Tensor, impl: str = "auto"
) -> Tensor:
    """Return z_t = (1 - t) z_0 + t eps (Eq. 4), with the first ``motion_frames`` frames kept clean.

    fp32 and fp64 inputs are blended in their own precision, bf16 and fp16 inputs in fp32 with one rounding at the end.

    Args:
        z0, eps: ``[B, C, f, h, w]``, one dtype and device.
        t: ``[B]`` in [0, 1], floating point.
        motion_frames: int, or ``[B]`` ints: latent frames at the start that stay z_0.
        impl: ``"auto"`` runs Triton on a GPU that has it, else the reference.

    Returns:
        ``[B, C, f, h, w]`` in z0's dtype.

    Raises:
        ValueError: naming the argument whose shape, dtype, device or value does not fit.
    """
    check_floating("z0", z0, "B C f h w")
    check_like("eps", eps, "z0", z0)
    check_floating("t", t, "B")
    if t.shape[0] != z0.shape[0]:
        raise ValueError(f"t must be [B] = [{z0.shape[0]}], got {tuple(t.shape)}")
    check_device("t", t, "z0", z0)
    run = op.add_noise_op if choose(impl, "add_noise", z0, t) == "triton" else reference.add_noise
    return run(z0, eps, t, _motion_frames(motion_frames, z0))


def weighted_flow_loss(
    v_hat: Tensor,
    z0: Tensor,
    eps: Tensor,
    face_mask: Tensor,
    lip_mask: Tensor,
    *,
    face_weight: float = 0.3,
    lip_weight: float = 0.3,
    motion_frames: int | Tensor,
    per_sample: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Return the mean over samples of sum (1 + w M + w_lip M_lip) (v_hat - (eps - z_0))^2 / number (Eq. 1, 13).

    Sum and number run over a sample's elements behind its motion frames; a sample without such elements has the loss 0.
    Every sample weighs the same, however many motion frames it has, so a batch's mean is that of its micro batches.

    Args:
        v_hat, z0, eps: ``[B, C, f, h, w]``; v_hat may be narrower than z0 and eps (bf16 model, fp32 latents).
        face_mask, lip_mask: ``[B, 1, f, h, w]``, floating point or bool.
        face_weight, lip_weight: w and w_lip, 0.3 in the paper.
        motion_frames: int, or ``[B]`` ints: latent frames at the start that are left out. Numbers of a tensor are
            clamped to 0..f, because checking them would make the host wait for the device.
        per_sample: also return the weighted sum and the number of elements of every sample, both ``[B]`` and
            detached: ``sums / numbers`` is the loss of each sample, for curves by noise band.
        impl: ``"triton"`` computes value and gradient in one pass and needs masks without a gradient; ``"auto"`` runs
            Triton on a GPU that has it, else the reference.

    Returns:
        Scalar in fp32 (fp64 for fp64 v_hat), or ``(loss, sums, numbers)``.

    Raises:
        ValueError: naming the argument whose shape, dtype, device or value does not fit.
    """
    check_floating("v_hat", v_hat, "B C f h w")
    _check_latents("z0", z0, "v_hat", v_hat)
    _check_latents("eps", eps, "v_hat", v_hat)
    _check_mask("face_mask", face_mask, v_hat)
    _check_mask("lip_mask", lip_mask, v_hat)
    motion = _motion_frames(motion_frames, v_hat)
    implementation = choose(impl, "weighted_flow_loss", v_hat, z0, eps)
    if implementation == "triton" and (name := _trained_mask(face_mask, lip_mask)):
        if impl == "triton":
            raise ValueError(f"{name} must not require a gradient with impl='triton'; use impl='reference'")
        implementation = "reference"
    if implementation == "triton":
        loss, sums, numbers, *_ = op.flow_loss_op(
            v_hat, z0, eps, face_mask, lip_mask, motion, face_weight, lip_weight
        )
    else:
        loss, sums, numbers = reference.weighted_flow_loss(
            v_hat,
            z0,
            eps,
            face_mask,
            lip_mask,
            face_weight=face_weight,
            lip_weight=lip_weight,
            motion_frames=motion,
        )
    return (loss, sums.detach(), numbers) if per_sample else loss


def _trained_mask(face_mask: Tensor, lip_mask: Tensor) -> str | None:
    """Return the name of the first mask that requires a gradient."""
    masks = dict(face_mask=face_mask, lip_mask=lip_mask)
    return next((name for name, x in masks.items() if torch.is_grad_enabled() and x.requires_grad), None)
