"""The face shape and the occluder finder that a recipe selects, with their networks in memory."""

from __future__ import annotations

from xdub.config import MasksConfig, required_path
from xdub.masks.face_shape import FaceShape
from xdub.masks.light import LightFinder
from xdub.masks.lower_face import LowerFace
from xdub.masks.mesh_shape import MeshShape
from xdub.masks.occluders import NoFinder, OccluderFinder
from xdub.precision import open_device


def load_face_shape(config: MasksConfig) -> FaceShape:
    """Load `masks.face`. Raise UserError if its weights are missing or have another format."""
    if config.face == "lower":
        return LowerFace()
    if config.face == "flame":
        from xdub.masks.flame import read_flame
        from xdub.masks.flame_shape import FlameShape
        from xdub.masks.smirk import load_smirk

        flame = read_flame(required_path(config, "flame"))
        return FlameShape(flame, load_smirk(required_path(config, "smirk")), open_device())
    return MeshShape()


def load_occluder_finder(config: MasksConfig) -> OccluderFinder:
    """Load `masks.occluders`. Raise UserError if its weights are missing or have another format."""
    if config.occluders == "none":
        return NoFinder()
    if config.occluders == "vlm":
        from xdub.masks.phrase_finder import PhraseFinder
        from xdub.masks.segmenter import VideoSegmenter
        from xdub.masks.vision_language import VisionLanguageModel

        device = open_device()
        model = VisionLanguageModel(required_path(config, "vision_language"), device)
        return PhraseFinder(model, VideoSegmenter(required_path(config, "segmenter"), device))
    return LightFinder()
