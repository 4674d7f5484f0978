"""The face embedder that a recipe names."""

from __future__ import annotations

from pathlib import Path

from xdub.config import PerceptionConfig
from xdub.errors import UserError
from xdub.perception.identity.base import Identity


def load_identity(config: PerceptionConfig, crop_scale: float = 1.0) -> Identity:
    """Load the embedder that a recipe names, in eval mode, on the CPU.

    Args:
        crop_scale: the recipe's ``video.crop_scale``, for faces that are embedded without landmarks.

    Raises:
        UserError: its weights are missing or of another network.
    """
    if config.identity == "dlib":
        from xdub.perception.identity.dlib import DlibIdentity

        network: Identity = DlibIdentity.load(config.identity_path)
    else:
        from xdub.perception.identity.arcface import ArcFaceIdentity

        if config.identity_path is None:
            raise UserError(
                "perception.identity: arcface needs perception.identity_path, the backbone.pth of an ArcFace r50 or "
                "r100 (non-commercial research licence); or set perception.identity=dlib"
            )
        network = ArcFaceIdentity.load(Path(config.identity_path))
    network.crop_scale = crop_scale
    return network.eval()
