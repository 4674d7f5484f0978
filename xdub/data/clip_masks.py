"""The masks of one clip while a video is prepared: face, occluders, and the meshes that both need."""

from __future__ import annotations

import numpy as np

from xdub.config import PREPARE, MasksConfig, Recipe, network_digests
from xdub.data.clip import Clip
from xdub.data.clip_checks import Rejected
from xdub.data.spans import Span
from xdub.data.transforms import crop_mesh
from xdub.masks.face_shape import FaceViews
from xdub.masks.load import load_face_shape, load_occluder_finder
from xdub.perception.face_search import FaceSearch, SearchWindow
from xdub.perception.faces import SHORT_GAP, bridge_gaps
from xdub.perception.landmarks import mesh_to_68
from xdub.perception.mesh_file import POINTS, MeshFile

PERSON_FRAMES = 200
"""Meshes of a span from which the person's shape is measured; they bound the memory of long videos."""

SAME_FACE, MEASURED_FACE = 0.02, 0.05
"""Largest distance of a mesh's points from a clip's landmarks, in sides of the crop: recorded, and measured again."""


class ClipMasks:
    """Face shape and occluder finder in memory; one object serves many clips."""

    def __init__(self, config: MasksConfig, search: FaceSearch) -> None:
        """Load the networks; ``search`` is the tracker's. Raise UserError if weights are missing."""
        self._search = search
        self._shape, self._finder = load_face_shape(config), load_occluder_finder(config)
        self._reads_meshes = (config.face, config.occluders) != ("lower", "none")
        self._person: tuple[Span, np.ndarray] | None = None

    def new_record(self) -> MeshFile | None:
        """Return the file for the meshes of a video, None if no mask needs them."""
        return MeshFile() if self._reads_meshes else None

    def views(self, frames: np.ndarray, start: int, span: Span, points: np.ndarray) -> FaceViews:
        """Return the views of crops uint8 [F, S, S, 3] from frame ``start`` on, with landmarks [F, 68, 2] crop px."""
        if span.meshes is None:
            empty = np.full((len(frames), POINTS, 3), np.nan, np.float32)
            return FaceViews(frames=frames, landmarks=points, mesh=empty, person=empty)
        mesh = self._recorded(span.meshes, frames, start, span)
        if _same_face(mesh, points, frames.shape[1]):
            if self._person is None or self._person[0] is not span:
                self._person = span, span.meshes.sample(span.start, span.end, PERSON_FRAMES)
            return FaceViews(frames=frames, landmarks=points, mesh=mesh, person=self._person[1])
        # The clip shows another face than the most prominent one, which alone is recorded.
        mesh = measured_meshes(self._search, frames, points)
        return FaceViews(frames=frames, landmarks=points, mesh=mesh, person=mesh)

    @staticmethod
    def _recorded(record: MeshFile, frames: np.ndarray, start: int, span: Span) -> np.ndarray:
        """Return the recorded meshes [F, 478, 3] in px of the crops; short gaps are interpolated."""
        count, size = frames.shape[:2]
        low, high = max(span.start, start - SHORT_GAP - 1), min(span.end, start + count + SHORT_GAP + 1)
        meshes = record.read(low, high)
        meshes = bridge_gaps(meshes, np.zeros(len(meshes), bool))[start - low :][:count]
        if span.area is not None:
            meshes = meshes - np.array([span.area.left, span.area.top, 0], np.float32)
        return crop_mesh(meshes, span.boxes[start - span.start :][:count], size)

    def face(self, views: FaceViews) -> np.ndarray:
        """Return the face mask bool [F, S, S].

        Raise `Rejected` if it is empty in a frame, because the generator would see the mouth that it has to generate.
        """
        masks = self._shape.masks(views)
        share = float(masks.any(axis=(1, 2)).mean())
        if share < 1:
            raise Rejected(
                "face_mask", share, 1.0, "no mesh of the face in some frames, so they have no face mask"
            )
        return masks

    def occluders(self, views: FaceViews, face: np.ndarray) -> np.ndarray:
        """Return the objects in front of the face, bool [F, S, S]."""
        return self._finder.find(views, face)


def _same_face(mesh: np.ndarray, points: np.ndarray, size: int) -> bool:
    """Return True if meshes [F, 478, 3] belong to landmarks [F, 68, 2] in px of crops of ``size`` px."""
    off = np.abs(mesh_to_68(mesh) - points).max(axis=(1, 2))
    return bool((off < SAME_FACE * size).all())


def measured_meshes(search: FaceSearch, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Measure the meshes [F, 478, 3] of the faces at landmarks [F, 68, 2] in crops.

    Short gaps are interpolated, and rows of longer gaps are nan.
    """
    size = frames.shape[1]
    meshes = np.full((len(frames), POINTS, 3), np.nan, np.float32)
    for n, frame in enumerate(frames):
        for mesh in search.in_window(frame, SearchWindow(0, 0, size)):
            if np.abs(mesh_to_68(mesh) - points[n]).mean() < MEASURED_FACE * size:
                meshes[n] = mesh
    return bridge_gaps(meshes, np.zeros(len(meshes), bool))


def occluded_share(clip: Clip) -> float:
    """Return the share of the face's pixels that objects cover."""
    return float((clip.face_mask & clip.occluder_mask).sum() / max(1, clip.face_mask.sum()))


def mask_settings(recipe: Recipe) -> dict[str, object]:
    """Return what a data set records of its masks; the masks of earlier versions record nothing."""
    config = recipe.masks
    settings: dict[str, object] = {}
    if config.face != "lower":
        settings["face"] = config.face
    if config.occluders != "none":
        settings["occluders"] = config.occluders
    if config.references:
        settings["references"] = config.references
    if networks := network_digests(recipe, (PREPARE,)):
        settings["networks"] = networks
    return {"masks": settings} if settings else {}
