"""The face shape and the occluder finder that a recipe selects, with their networks in memory."""

from __future__ import annotations

from xdub.config import MasksConfig
from xdub.masks.face_shape import FaceShape
from xdub.masks.light import LightFinder
from xdub.masks.lower_face import LowerFace
from xdub.masks.mesh_shape import MeshShape
from xdub.masks.occluders import NoFinder, OccluderFinder


def load_face_shape(config: MasksConfig) -> FaceShape:
    """Load `masks.face`. Raise UserError if its weights are missing or have another format."""
    if config.face == "lower":
        return LowerFace()
    return MeshShape()


def load_occluder_finder(config: MasksConfig) -> OccluderFinder:
    """Load `masks.occluders`. Raise UserError if its weights are missing or have another format."""
    if config.occluders == "none":
        return NoFinder()
    return LightFinder()
