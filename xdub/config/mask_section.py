"""Recipe section of the masks and reference frames that `xdub prepare` stores (paper B.2, B.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from xdub.config.checks import ADDED, NOT_NEGATIVE
from xdub.config.network_sections import DERIVED

MASK_NETWORKS: Mapping[str, Mapping[str, str]] = {
    "flame": {"flame": "flame", "smirk": "smirk"},
    "vlm": {"vision_language": "qwen2.5-vl", "segmenter": "sam2"},
}
"""Value of `MasksConfig.face` or `MasksConfig.occluders` -> role and kind of each network that it needs."""


@dataclass(frozen=True, kw_only=True)
class MasksConfig:
    """Masks of clips that are cut from videos; rendered heads have masks of their own."""

    face: Literal["mesh", "flame", "lower"] = field(default="mesh", metadata=ADDED)
    """Shape of the face mask: MediaPipe's mesh with the person's shape, the paper's FLAME fitted by SMIRK, or the mean
    lower face of data sets that earlier versions prepared."""
    occluders: Literal["light", "vlm", "none"] = field(default="light", metadata=ADDED)
    """Search for objects in front of the face: by their appearance on the person's face, by the paper's language model
    and SAM 2, or none."""
    references: Annotated[int, NOT_NEGATIVE] = field(default=4, metadata=ADDED)
    """Frames of another segment of the source that a clip stores as references for the generator; 0: none."""
    flame_path: str | None = field(default=None, metadata=ADDED)
    smirk_path: str | None = field(default=None, metadata=ADDED)
    vision_language_path: str | None = field(default=None, metadata=ADDED)
    segmenter_path: str | None = field(default=None, metadata=ADDED)
    weights: str | None = field(default=None, metadata=DERIVED)
    """The recipe's `weights`."""

    @property
    def networks(self) -> Mapping[str, str]:
        """Role -> kind of the networks that the section selects; empty if it needs none from a path."""
        return {**MASK_NETWORKS.get(self.face, {}), **MASK_NETWORKS.get(self.occluders, {})}
