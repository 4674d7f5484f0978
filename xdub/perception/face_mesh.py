"""Masks of the lower face and the lips from landmarks.

The face mask is a small 3D model of the lower face with its jaw open at a fixed 0.4. Points that are still in speech
(eye corners, brows, nose) determine its pose in each frame, never lips or jaw, so the mask carries no lip motion. A box
or hull that follows the lips would leak the old speech into the generator (paper B.2).
"""

from __future__ import annotations

import numpy as np

from xdub.perception.landmarks import EYE_CORNERS, MOUTH

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
"""Model point of each landmark, the mean over 60 rendered identities.

The unit is the distance between the eye centres. The origin lies between the eyes; x points to the right of the
picture, y down, z away from the viewer.
"""
DEVIATION = dict.fromkeys((17, 19, 21, 22, 24, 26), 0.2) | dict.fromkeys((36, 39, 42, 45), 0.04)
"""Standard deviation of points of real faces from the model, in eye distances. Brows move and differ between people."""
USUAL_DEVIATION = 0.08
"""Standard deviation of all other points."""
USUAL_YAW, USUAL_PITCH = 0.5, 0.2
"""Standard deviations of the head's turn and nod in radians: a prior, because a long nose looks like a lowered head."""
HALF_OUTLINE = (
    *((0.0, 1.95, 0.25), (0.23, 1.92, 0.48), (0.45, 1.82, 0.73), (0.45, 1.70, 0.20), (0.76, 1.60, 0.77)),
    *((0.82, 1.32, 0.42), (0.88, 1.41, 1.03), (1.0, 1.14, 0.82), (0.98, 0.90, 0.48), (0.98, 0.30, 0.24)),
    *((0.73, 0.25, 0.03), (0.74, 0.70, 0.02), (0.60, 1.15, 0.03), (0.24, 1.40, -0.16), (0.05, 0.34, -0.37)),
    *((0.29, 1.07, -0.24), (0.0, 1.40, -0.30), (0.0, 0.34, -0.37)),
)
"""Half of the outline, from below the eyes to under the chin, jaw open at 0.4; x = 0 is the middle."""
GROW = 1.08
"""Enlargement of the outline about its middle, because chins and cheeks differ between people."""
STEPS = 8
"""Gauss-Newton steps of the pose."""
STEADY = 1.0
"""Sigma in frames of the Gaussian over the pose: below the head's motion, above the landmarks' jitter."""


def lower_face_masks(landmarks68: np.ndarray, height: int, width: int, grow: float = GROW) -> np.ndarray:
    """Draw masks [F, height, width] bool from landmarks [F, 68, 2] px; a mask is empty if its landmarks are nan.

    Only eye corners, brows and nose are read (see ``POSE_POINTS``).
    """
    outline = posed_outline(landmarks68)
    middle = (outline.min(axis=1, keepdims=True) + outline.max(axis=1, keepdims=True)) / 2
    return hull_masks((outline - middle) * grow + middle, height, width)


def posed_outline(landmarks68: np.ndarray) -> np.ndarray:
    """Project the model's outline to [F, N, 2] px at the pose of every frame; nan where landmarks are nan."""
    half = np.array(HALF_OUTLINE)
    outline = np.concatenate([half, half[half[:, 0] > 0] * (-1, 1, 1)])
    camera = _steady(head_pose(landmarks68))
    return outline @ np.swapaxes(camera[:, :, :3], 1, 2) + camera[:, None, :, 3]


def head_pose(landmarks68: np.ndarray) -> np.ndarray:
    """Estimate cameras [F, 2, 4] (rotation, scale, shift) from model units to px; nan where points are nan.

    Gauss-Newton finds the most probable pose under the deviations above, for all frames at once.
    """
    index = list(POSE_POINTS)
    model = np.array([POSE_POINTS[i] for i in index])
    points = np.asarray(landmarks68, np.float64)[:, index]
    valid = np.isfinite(points).all(axis=(1, 2))
    cameras = np.full((len(points), 2, 4), np.nan)
    if not valid.any():
        return cameras
    faces = points[valid]
    eyes = [index.index(i) for i in EYE_CORNERS]
    centre = faces[:, eyes].mean(axis=1)
    across = faces[:, eyes[2:]].mean(axis=1) - faces[:, eyes[:2]].mean(axis=1)
    unit = np.linalg.norm(across, axis=1)
    target = (faces - centre[:, None]) / unit[:, None, None]
    sharpness = 1 / np.array([DEVIATION.get(i, USUAL_DEVIATION) for i in index])
    # The columns are yaw, pitch, roll, log scale and shift.
    pose = np.zeros((len(faces), 6))
    pose[:, 2] = np.arctan2(across[:, 1], across[:, 0])
    prior = np.array([1 / USUAL_YAW, 1 / USUAL_PITCH, 0, 0, 0, 0])

    def misfit(pose: np.ndarray) -> np.ndarray:
        camera = _camera(pose)
        projected = model @ np.swapaxes(camera[:, :, :3], 1, 2) + camera[:, None, :, 3]
        errors = (projected - target) * sharpness[:, None]
        return np.concatenate([errors.reshape(len(pose), -1), pose * prior], axis=1)

    for _ in range(STEPS):
        errors = misfit(pose)
        slopes = [(misfit(pose + 1e-5 * step) - errors) / 1e-5 for step in np.eye(6)]
        jacobian = np.stack(slopes, axis=2)
        normal = np.swapaxes(jacobian, 1, 2) @ jacobian + 1e-9 * np.eye(6)
        pose -= np.linalg.solve(normal, np.swapaxes(jacobian, 1, 2) @ errors[..., None])[..., 0]
        pose[:, :2] = np.clip(pose[:, :2], -1.4, 1.4)
    result = _camera(pose) * unit[:, None, None]
    result[:, :, 3] += centre
    cameras[valid] = result
    return cameras


def _camera(pose: np.ndarray) -> np.ndarray:
    """Convert [F, 6] (yaw, pitch, roll, log scale, shift) to cameras [F, 2, 4]."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(pose[:, :3]).T, np.sin(pose[:, :3]).T
    # These are the first two rows of the rotation by yaw, then pitch.
    turned = np.array([[cy, np.zeros_like(cy), sy], [sp * sy, cp, -sp * cy]])
    rolled = np.array([[cr, -sr], [sr, cr]])
    rows = np.einsum("ijf,jkf->fik", rolled, turned) * np.exp(pose[:, 3])[:, None, None]
    return np.concatenate([rows, pose[:, 4:, None]], axis=2)


def lip_masks(
    landmarks68: np.ndarray, height: int, width: int, grow: float = 1.3, reach: int = 2
) -> np.ndarray:
    """Draw [F, height, width] bool: hulls of the mouth points, enlarged, united over ``reach`` frames on both sides.

    These masks follow the lips, so they only weight the loss and must never decide what is hidden from a model.
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
    """Fill the convex hulls [F, height, width] bool of points [F, N, 2]; empty where a point is nan."""
    import cv2

    masks = np.zeros((len(points), height, width), np.uint8)
    for mask, cloud in zip(masks, points, strict=True):
        if np.isfinite(cloud).all():
            hull = cv2.convexHull(cloud.astype(np.float32))
            # Coordinates have 4 bits of fraction. Pixel i covers [i, i + 1], so its centre lies at i + 0.5.
            cv2.fillConvexPoly(mask, np.rint((hull - 0.5) * 16).astype(np.int32), 1, shift=4)
    return masks.astype(bool)


def _steady(camera: np.ndarray) -> np.ndarray:
    """Smooth over time by a Gaussian; nan frames neither count nor are filled."""
    from scipy.ndimage import gaussian_filter1d

    valid = np.isfinite(camera).all(axis=(1, 2))
    if not valid.any():
        return camera
    share = gaussian_filter1d(valid.astype(float), STEADY, mode="constant", truncate=3)
    total = gaussian_filter1d(np.nan_to_num(camera), STEADY, axis=0, mode="constant", truncate=3)
    out = np.full_like(camera, np.nan)
    out[valid] = total[valid] / share[valid, None, None]
    return out
