"""The face embedder that a recipe names."""

from __future__ import annotations

from pathlib import Path

from xdub.config import PerceptionConfig, network_path, required_path
from xdub.perception.identity.base import Identity


def load_identity(config: PerceptionConfig, crop_scale: float = 1.0) -> Identity:
    """Load the embedder that a recipe names, in eval mode, on the CPU.

    Args:
        crop_scale: the recipe's ``video.crop_scale``, for faces that are embedded without landmarks.

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
    network.crop_scale = crop_scale
    return network.eval()
