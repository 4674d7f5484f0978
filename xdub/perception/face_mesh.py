"""Masks of the lower face and the lips from landmarks.

The face mask is a small 3D model of the lower face, its jaw open at a fixed 0.4, posed per frame by points that keep
still in speech: eye corners, brows, nose. It cannot tell the lips' motion, because it never sees lips or jaw
(paper B.2; a box or hull that follows the lips would leak the old speech into the generator).
"""

from __future__ import annotations

import numpy as np

from xdub.perception.landmarks import MOUTH

# The model, measured on our own rendered heads (mean of 60 identities): unit = distance of the eye centres, origin
# between the eyes, x to the right of the picture, y down, z away from the viewer.
POSE_POINTS = {
    17: (-0.94, -0.44, 0.23),
    19: (-0.72, -0.62, -0.01),
    21: (-0.26, -0.52, -0.25),
    22: (0.26, -0.52, -0.25),
    24: (0.72, -0.62, -0.01),
    26: (0.94, -0.44, 0.23),
    27: (0.0, -0.03, -0.21),
    28: (0.0, 0.26, -0.35),
    29: (0.0, 0.46, -0.47),
    30: (0.0, 0.61, -0.55),
    33: (0.0, 0.76, -0.35),
    36: (-0.72, -0.03, 0.03),
    39: (-0.28, 0.03, -0.03),
    42: (0.28, 0.03, -0.03),
    45: (0.72, -0.03, 0.03),
}
# How far a point of a real face may lie from the model, in eye distances: brows move, and differ between people.
DEVIATION = dict.fromkeys((17, 19, 21, 22, 24, 26), 0.2) | dict.fromkeys((36, 39, 42, 45), 0.04)
USUAL_DEVIATION = 0.08
# A long nose looks like a lowered head: turns are believed as far as the points insist against these (radians).
USUAL_YAW, USUAL_PITCH = 0.5, 0.2
# Half of the outline, from below the eyes to under the chin, jaw open at 0.4; x = 0 is the middle.
HALF_OUTLINE = (
    *((0.0, 1.95, 0.25), (0.23, 1.92, 0.48), (0.45, 1.82, 0.73), (0.45, 1.70, 0.20), (0.76, 1.60, 0.77)),
    *((0.82, 1.32, 0.42), (0.88, 1.41, 1.03), (1.0, 1.14, 0.82), (0.98, 0.90, 0.48), (0.98, 0.30, 0.24)),
    *((0.73, 0.25, 0.03), (0.74, 0.70, 0.02), (0.60, 1.15, 0.03), (0.24, 1.40, -0.16), (0.05, 0.34, -0.37)),
    *((0.29, 1.07, -0.24), (0.0, 1.40, -0.30), (0.0, 0.34, -0.37)),
)
GROW = 1.08  # about its middle: chins and cheeks differ between people
STEPS = 8
STEADY = 1.0  # frames; Gaussian over the pose, less than the head moves and more than the landmarks tremble


def lower_face_masks(landmarks68: np.ndarray, height: int, width: int, grow: float = GROW) -> np.ndarray:
    """[F, height, width] bool for landmarks [F, 68, 2] in px of that picture; empty where landmarks are nan.

    Only eye corners, brows and nose are read (see ``POSE_POINTS``).
    """
    outline = posed_outline(landmarks68)
    middle = (outline.min(axis=1, keepdims=True) + outline.max(axis=1, keepdims=True)) / 2
    return hull_masks((outline - middle) * grow + middle, height, width)


def posed_outline(landmarks68: np.ndarray) -> np.ndarray:
    """The model's outline [F, N, 2] in px at the pose of every frame; nan where landmarks are."""
    half = np.array(HALF_OUTLINE)
    outline = np.concatenate([half, half[half[:, 0] > 0] * (-1, 1, 1)])
    camera = _steady(head_pose(landmarks68))
    return outline @ np.swapaxes(camera[:, :, :3], 1, 2) + camera[:, None, :, 3]


def head_pose(landmarks68: np.ndarray) -> np.ndarray:
    """Cameras [F, 2, 4] that take the model (eye distances) to px: rotation, scale and shift; nan where points are.

    Most probable pose (Gauss-Newton) under the deviations above, all frames at once.
    """
    index = list(POSE_POINTS)
    model = np.array([POSE_POINTS[i] for i in index])
    points = np.asarray(landmarks68, np.float64)[:, index]
    known = np.isfinite(points).all(axis=(1, 2))
    camera = np.full((len(points), 2, 4), np.nan)
    if not known.any():
        return camera
    seen = points[known]
    eyes = [index.index(i) for i in (36, 39, 42, 45)]
    centre = seen[:, eyes].mean(axis=1)
    across = seen[:, eyes[2:]].mean(axis=1) - seen[:, eyes[:2]].mean(axis=1)
    unit = np.linalg.norm(across, axis=1)
    target = (seen - centre[:, None]) / unit[:, None, None]
    sharpness = 1 / np.array([DEVIATION.get(i, USUAL_DEVIATION) for i in index])
    # yaw, pitch, roll, log scale, shift
    pose = np.zeros((len(seen), 6))
    pose[:, 2] = np.arctan2(across[:, 1], across[:, 0])
    prior = np.array([1 / USUAL_YAW, 1 / USUAL_PITCH, 0, 0, 0, 0])

    def misfit(pose: np.ndarray) -> np.ndarray:
        placed = _camera(pose)
        miss = (model @ np.swapaxes(placed[:, :, :3], 1, 2) + placed[:, None, :, 3] - target) * sharpness[
            :, None
        ]
        return np.concatenate([miss.reshape(len(pose), -1), pose * prior], axis=1)

    for _ in range(STEPS):
        here = misfit(pose)
        slopes = [(misfit(pose + 1e-5 * step) - here) / 1e-5 for step in np.eye(6)]
        jacobian = np.stack(slopes, axis=2)
        normal = np.swapaxes(jacobian, 1, 2) @ jacobian + 1e-9 * np.eye(6)
        pose -= np.linalg.solve(normal, np.swapaxes(jacobian, 1, 2) @ here[..., None])[..., 0]
        pose[:, :2] = np.clip(pose[:, :2], -1.4, 1.4)
    found = _camera(pose) * unit[:, None, None]
    found[:, :, 3] += centre
    camera[known] = found
    return camera


def _camera(pose: np.ndarray) -> np.ndarray:
    """[F, 6] yaw, pitch, roll, log scale, shift -> [F, 2, 4]."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(pose[:, :3]).T, np.sin(pose[:, :3]).T
    turned = np.array(
        [[cy, np.zeros_like(cy), sy], [sp * sy, cp, -sp * cy]]
    )  # pitch after yaw, first two rows
    rolled = np.array([[cr, -sr], [sr, cr]])
    rows = np.einsum("ijf,jkf->fik", rolled, turned) * np.exp(pose[:, 3])[:, None, None]
    return np.concatenate([rows, pose[:, 4:, None]], axis=2)


def lip_masks(
    landmarks68: np.ndarray, height: int, width: int, grow: float = 1.3, reach: int = 2
) -> np.ndarray:
    """[F, height, width] bool: hulls of the mouth points, grown, joined over ``reach`` frames to both sides.

    For weights of the loss only: it follows the lips, so it must never decide what is hidden from a model.
    """
    mouth = np.asarray(landmarks68, np.float64)[:, MOUTH]
    middle = (mouth.min(axis=1, keepdims=True) + mouth.max(axis=1, keepdims=True)) / 2
    masks = hull_masks((mouth - middle) * grow + middle, height, width)
    joined = masks.copy()
    for step in range(1, min(reach, len(masks) - 1) + 1):
        joined[step:] |= masks[:-step]
        joined[:-step] |= masks[step:]
    return joined


def hull_masks(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Filled convex hulls [F, height, width] bool of points [F, N, 2]; empty where a point is nan."""
    import cv2

    masks = np.zeros((len(points), height, width), np.uint8)
    for mask, cloud in zip(masks, points, strict=True):
        if np.isfinite(cloud).all():
            hull = cv2.convexHull(cloud.astype(np.float32))
            # 4 bits of fraction; pixel i covers [i, i + 1], so its centre lies at i + 0.5
            cv2.fillConvexPoly(mask, np.rint((hull - 0.5) * 16).astype(np.int32), 1, shift=4)
    return masks.astype(bool)


def _steady(camera: np.ndarray) -> np.ndarray:
    """Gaussian over time, within runs of known frames: nan frames neither count nor are filled."""
    from scipy.ndimage import gaussian_filter1d

    known = np.isfinite(camera).all(axis=(1, 2))
    if not known.any():
        return camera
    share = gaussian_filter1d(known.astype(float), STEADY, mode="constant", truncate=3)
    total = gaussian_filter1d(np.nan_to_num(camera), STEADY, axis=0, mode="constant", truncate=3)
    out = np.full_like(camera, np.nan)
    out[known] = total[known] / share[known, None, None]
    return out
