"""SAM 2 for video (transformers): masks of objects through a clip, from boxes in one of its frames (paper B.3).

Pictures and boxes are prepared here as the model's own processor prepares them, because that processor needs
torchvision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xdub.perception.network_files import load_pretrained

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of pixels in [0, 1]."""
BOX_LABELS = (2, 3)
"""Labels of the two corners of a box among the point prompts."""


class VideoSegmenter:
    """SAM 2 in memory."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        """Load a folder or hub name. Raise UserError if it has another format or lacks weights."""
        from transformers import Sam2VideoModel

        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        model = load_pretrained(Sam2VideoModel, "masks.segmenter_path", path, dtype=dtype)
        self._model = model.to(device).eval().requires_grad_(False)
        self._device, self._dtype = device, dtype
        size = self._model.config.image_size
        self._side = size if isinstance(size, int) else size[0]

    @torch.inference_mode()
    def track(self, frames: np.ndarray, first: int, boxes: np.ndarray) -> np.ndarray:
        """Return bool [F, H, W]: the objects in boxes [K, 4] px of frame ``first``, followed in both directions.

        ``frames`` is uint8 [F, H, W, 3].
        """
        from transformers import Sam2VideoInferenceSession

        count, height, width = frames.shape[:3]
        masks = np.zeros((count, height, width), bool)
        if not len(boxes):
            return masks
        for direction in (False, True):
            session = Sam2VideoInferenceSession(
                video=self._pixels(frames),
                video_height=height,
                video_width=width,
                inference_device=self._device,
                inference_state_device=self._device,
                video_storage_device="cpu",
                dtype=self._dtype,
            )
            self._add_boxes(session, first, boxes, height, width)
            for output in self._model.propagate_in_video_iterator(
                session, start_frame_idx=first, reverse=direction
            ):
                scores = F.interpolate(
                    output.pred_masks.float(), (height, width), mode="bilinear", align_corners=False
                )
                masks[output.frame_idx] |= (scores > 0).flatten(0, 1).any(dim=0).cpu().numpy()
        return masks

    def _pixels(self, frames: np.ndarray) -> Tensor:
        """Return normalised pictures [F, 3, side, side] in the model's type, on the CPU."""
        pictures = []
        for frame in frames:
            picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
            size = (self._side, self._side)
            picture = F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
            mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
            pictures.append(((picture - mean) / std).to(self._dtype))
        return torch.cat(pictures)

    def _add_boxes(
        self,
        session: object,
        frame: int,
        boxes: np.ndarray,
        height: int,
        width: int,
    ) -> None:
        """Add every box as an object to a session, with its corners in px of the model's picture."""
        from transformers import Sam2VideoInferenceSession

        assert isinstance(session, Sam2VideoInferenceSession)
        scale = torch.tensor([self._side / width, self._side / height])
        for number, box in enumerate(boxes):
            corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2) * scale
            labels = torch.tensor(BOX_LABELS, dtype=torch.int32)[None, None]
            points = {"point_coords": corners, "point_labels": labels}
            session.add_point_inputs(session.obj_id_to_idx(number), frame, points)
        session.obj_with_new_inputs = list(range(len(boxes)))
