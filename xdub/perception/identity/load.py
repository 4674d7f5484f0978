"""The face embedder that a recipe names."""

from __future__ import annotations

from pathlib import Path

from xdub.config import PerceptionConfig, VideoConfig, network_path, required_path
from xdub.perception.identity.base import Identity
from xdub.perception.landmarks import LANDMARK_BOX


def load_identity(config: PerceptionConfig, video: VideoConfig | None = None) -> Identity:
    """Load the embedder that a recipe names, in eval mode, on the CPU.

    Args:
        video: the recipe's section, for face crops that are embedded without landmarks. None: crops of scale 1.

    Raises:
        UserError: its weights are missing or of another network.
    """
    if config.identity == "mobilefacenet":
        from xdub.perception.identity.mobilefacenet import MobileFaceNetIdentity

        network: Identity = MobileFaceNetIdentity.load(network_path(config, "identity"))
    elif config.identity == "dlib":
        from xdub.perception.identity.dlib import DlibIdentity

        network = DlibIdentity.load(network_path(config, "identity"))
    else:
        from xdub.perception.identity.arcface import ArcFaceIdentity

        network = ArcFaceIdentity.load(Path(required_path(config, "identity")))
    if video is not None:
        side, drop = LANDMARK_BOX if video.crop == "landmark_box" else (1.0, 0.0)
        network.crop_scale, network.crop_drop = video.crop_scale * side, drop
    return network.eval()
