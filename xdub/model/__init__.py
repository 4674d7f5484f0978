"""The networks (paper 3, Fig. 3): backbone, conditioning, codec, audio encoder, LoRA experts.

`load_backbone` and `save_backbone` exchange backbones with other software as folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdub.model.backbone_files import load_backbone, save_backbone

__all__ = ["load_backbone", "save_backbone"]


def __getattr__(name: str) -> Any:
    """Import the functions when they are first used, because they load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from xdub.model import backbone_files

    return getattr(backbone_files, name)
