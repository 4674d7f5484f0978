"""A small network that reads the mouth's opening from a patch of pixels below the nose.

Eyes and nose position the patch, never lips or jaw. The landmarks of a source video therefore position the patch in its
dubbed version, too, and carry no information about either mouth. ``xdub.fit.readout`` trains the network on rendered
speakers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xdub.config.shipped import shipped_weights
from xdub.errors import UserError
from xdub.files.tensors import read_metadata, read_tensors, write_tensors
from xdub.perception.landmarks import EYE_TO_NOSE, NOSE_BASE, eye_centres

PACKAGED = "mouth_readout.safetensors"
"""File of the shipped network."""
PATCH = 32
"""Side of the network's input, px."""
HALF_SIDE = 0.64
"""Half the side of the patch, in eye distances."""
DROP = 0.45
"""Distance of the patch's centre below the base of the nose, in eye distances."""


class MouthReadout(nn.Module):
    """Network that reads the opening, the inner-lip gap in eye distances, from patches [N, 3, 32, 32] in [0, 1]."""

    name = "mouth-readout"

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        sizes = (3, width, 2 * width, 3 * width, 3 * width)
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(4, after), nn.GELU()]
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(4 * sizes[-1], 64), nn.GELU(), nn.Linear(64, 1)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches [N, 3, 32, 32] in [0, 1] to openings [N]."""
        level = patches.mean((1, 2, 3), keepdim=True)
        contrast = patches.std((1, 2, 3), keepdim=True) + 0.02
        return self.net((patches - level) / contrast)[:, 0]

    @torch.no_grad()
    def read(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Read the opening [F] float32 of frames [F, H, W, 3] uint8 with landmarks [F, 68, 2] px; nan where unknown."""
        patches, valid = mouth_patches(frames, landmarks)
        opening = np.full(len(frames), np.nan, np.float32)
        if valid.any():
            device = next(self.parameters()).device
            parts = torch.from_numpy(patches[valid]).permute(0, 3, 1, 2).float().div(255).split(256)
            opening[valid] = torch.cat([self(part.to(device)) for part in parts]).cpu().numpy()
        return opening

    def save(self, path: str | Path) -> None:
        """Write one safetensors file in half precision."""
        state = {name: value.detach().half().contiguous() for name, value in self.state_dict().items()}
        write_tensors(state, path, {"network": self.name, "width": str(self.width)})

    @classmethod
    def load(cls, path: str | Path) -> MouthReadout:
        """Load a file of ``save`` in fp32, frozen. Raise UserError if the file is missing or holds another network."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such readout; train one with `python -m xdub.fit.readout`")
        metadata = read_metadata(path)
        if metadata.get("network") != cls.name:
            raise UserError(f"{path} holds {metadata.get('network', 'no named network')}, not {cls.name}")
        net = cls(int(metadata["width"]))
        net.load_state_dict(read_tensors(path))
        return net.eval().requires_grad_(False)

    @classmethod
    def shipped(cls) -> MouthReadout:
        """Load the network that ships with the package."""
        return cls.load(shipped_weights(PACKAGED))


def patch_boxes(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centre [F, 2], half side [F] and unit vector along the eyes [F, 2] of the patch, in px of the landmarks.

    A turn or nod of the head shortens one of two distances, between the eyes or from eyes to nose, so the longer one
    determines the size.
    """
    points = np.asarray(landmarks, np.float64)
    left, right = eye_centres(points)
    nose, middle = points[:, NOSE_BASE], (left + right) / 2
    distance = np.linalg.norm(right - left, axis=-1)
    along = (right - left) / np.maximum(distance, 1e-6)[:, None]
    down = np.stack([-along[:, 1], along[:, 0]], -1)
    unit = np.maximum(distance, np.linalg.norm(nose - middle, axis=-1) / EYE_TO_NOSE)
    return nose + DROP * unit[:, None] * down, HALF_SIDE * unit, along


def mouth_patches(
    frames: np.ndarray, landmarks: np.ndarray, size: int = PATCH, margin: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cut upright patches [F, size, size, 3] uint8; the second result is bool [F], True if eyes and nose are known.

    ``margin`` above 1 widens the patch. Picture coordinates are continuous, so the first pixel's centre is (0.5, 0.5).
    Raise ValueError for wrong shapes.
    """
    import cv2

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}")
    if landmarks.shape != (len(frames), 68, 2):
        raise ValueError(f"landmarks must be [{len(frames)}, 68, 2], got {landmarks.shape}")
    centres, halves, alongs = patch_boxes(landmarks)
    valid = np.isfinite(centres).all(1) & (halves > 0)
    patches = np.zeros((len(frames), size, size, 3), np.uint8)
    for i in np.flatnonzero(valid):
        # Sample each picture pixel (`step` of them per patch pixel), then average.
        step = 2 * margin * halves[i] / size
        times = max(1, int(np.ceil(step)))
        (cos, sin), fine = alongs[i] * (step / times), size * times
        turn = np.array([[cos, -sin], [sin, cos]])
        corner = centres[i] - turn @ np.full(2, fine / 2) + turn @ np.full(2, 0.5) - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = np.concatenate([turn, corner[:, None]], 1)
        patch = cv2.warpAffine(frames[i], matrix, (fine, fine), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        patches[i] = cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA) if times > 1 else patch
    return patches, valid


def shake(patches: Tensor, generator: torch.Generator, size: int = PATCH) -> Tensor:
    """Augment wider patches [N, 3, S, S] in [0, 1] (margin S / size) to training pictures [N, 3, size, size].

    Each picture is shifted, rotated, scaled and mirrored a little, then blurred, brightened and made noisy, which
    imitates errors of tracking, codecs and diffusion.
    """
    count, scale = len(patches), size / patches.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    zoom, angle = scale * uniform(0.92, 1.08), uniform(-0.07, 0.07)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * angle.cos() * mirror, -zoom * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = zoom * angle.sin() * mirror, zoom * angle.cos()
    theta[:, :, 2] = uniform(-0.08, 0.08, 2)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    moved = F.grid_sample(patches, grid, mode="bilinear", padding_mode="border", align_corners=False)
    offsets = torch.arange(-3, 4).float()
    sigma = uniform(0.05, 1.3, 1)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=1)  # [N, 7]
    for shape in ((count, 1, 7, 1), (count, 1, 1, 7)):
        weight = kernel.view(shape).repeat_interleave(3, dim=0)
        pad = (0, 0, 3, 3) if shape[-1] == 1 else (3, 3, 0, 0)
        padded = F.pad(moved, pad, mode="replicate").reshape(
            1, 3 * count, size + pad[2] * 2, size + pad[0] * 2
        )
        moved = F.conv2d(padded, weight, groups=3 * count).view(count, 3, size, size)
    moved = moved * uniform(0.75, 1.25, 3, 1, 1) + uniform(-0.08, 0.08, 1, 1, 1)
    noise = torch.randn(moved.shape, generator=generator) * uniform(0, 0.05, 1, 1, 1)
    return (moved + noise).clamp(0, 1)
