"""Qwen2.5-VL (transformers), asked for the objects that occlude a face and for their positions (paper B.3).

Pictures are prepared here as the model's own processor prepares them, because that processor needs torchvision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xdub.errors import loading_pretrained
from xdub.perception.network_files import load_pretrained

PROMPT = (
    "Does any object occlude the person's face? If yes, output only a concise description of the object(s). "
    "If no, output nothing."
)
"""Question about a video (paper B.3)."""
LOCATE = "Locate every {phrase} and output the bbox coordinates in JSON format."
"""Request for boxes in the form that Qwen2.5-VL was trained on."""
NOTHING = re.compile(r"\W*((no|none|nothing|empty)\b.*)?", re.IGNORECASE | re.DOTALL)
"""Answers that name no object."""
BOX = re.compile(r'"bbox_2d"\s*:\s*\[\s*([-\d.]+)\s*,\s*([-\d.]+)\s*,\s*([-\d.]+)\s*,\s*([-\d.]+)\s*\]')
"""A box in an answer: x0, y0, x1, y1 in px of the picture."""
SYSTEM = "You are a helpful assistant."
PICTURES = 8
"""Pictures of a clip that the model sees, at equal distances."""
MOST_TOKENS = 128
"""Longest answer."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Normalisation of pixels of models whose folder has no preprocessor_config.json."""
SMALLEST, LARGEST = 56 * 56, 768 * 28 * 28
"""Pixels of a picture; smaller and larger ones are resized."""


@dataclass(frozen=True)
class Patches:
    """Pictures as the vision tower reads them."""

    values: Tensor
    """[N, 3 * 2 * 14 * 14], patches of two frames in the order of the merged windows"""
    grid: tuple[int, int, int]
    """Patches in time, height and width"""
    size: tuple[int, int]
    """Height and width in px after resizing"""


class VisionLanguageModel:
    """Qwen2.5-VL in memory. Answers are greedy, so equal pictures have equal answers."""

    def __init__(self, path: str | Path, device: torch.device) -> None:
        """Load a folder or hub name. Raise UserError if it has another format or lacks weights."""
        from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

        setting = "masks.vision_language_path"
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._model = load_pretrained(Qwen2_5_VLForConditionalGeneration, setting, path, dtype=dtype)
        self._model = self._model.to(device).eval().requires_grad_(False)
        with loading_pretrained(setting, path):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
        config = self._model.config
        self._device, vision = device, config.vision_config
        self._patch, self._pair, self._merge = (
            vision.patch_size,
            vision.temporal_patch_size,
            vision.spatial_merge_size,
        )
        self._video_token, self._image_token = config.video_token_id, config.image_token_id

    def describe(self, frames: np.ndarray) -> str:
        """Return the objects in front of the face of uint8 [F, H, W, 3], in words; "" without objects."""
        index = np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int)
        answer = self.answer(frames[index], PROMPT, seconds=len(frames) / 25).strip()
        return "" if NOTHING.fullmatch(answer) else answer.splitlines()[0].strip().rstrip(".")

    def locate(self, frame: np.ndarray, phrase: str) -> np.ndarray:
        """Return the boxes [K, 4] (x0, y0, x1, y1) px of the objects that ``phrase`` names in uint8 [H, W, 3]."""
        height, width = frame.shape[:2]
        high, wide = self.patches(frame[None]).size
        answer = self.answer(frame[None], LOCATE.format(phrase=phrase))
        boxes = np.array([[float(value) for value in box] for box in BOX.findall(answer)]).reshape(-1, 4)
        # The model's coordinates are px of the resized picture.
        boxes = boxes * np.tile([width / wide, height / high], 2)
        boxes = np.clip(boxes, 0, [width, height, width, height])
        return boxes[((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)]

    def answer(self, frames: np.ndarray, question: str, seconds: float | None = None) -> str:
        """Return the answer to a question about one picture, or about a video of ``seconds``; uint8 [F, H, W, 3]."""
        inputs = self.inputs(frames, question, seconds)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, do_sample=False, max_new_tokens=MOST_TOKENS)
        return self._tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def inputs(self, frames: np.ndarray, question: str, seconds: float | None = None) -> dict[str, Any]:
        """Return the arguments of the network for a question; see `answer`."""
        patches, is_video = self.patches(frames), seconds is not None
        time, high, wide = patches.grid
        count = time * high * wide // self._merge**2
        pad, marks = ("video", self._video_token) if is_video else ("image", self._image_token)
        text = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
            f"{f'<|{pad}_pad|>' * count}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = self._tokenizer(text, return_tensors="pt")["input_ids"].to(self._device)
        kinds = (ids == marks).int() * (2 if is_video else 1)
        grid = torch.tensor([patches.grid], device=self._device)
        values = patches.values.to(self._device, self._model.dtype)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}
        if seconds is None:
            return inputs | {"pixel_values": values, "image_grid_thw": grid}
        step = torch.tensor([seconds / time], device=self._device)
        return inputs | {"pixel_values_videos": values, "video_grid_thw": grid, "second_per_grid_ts": step}

    def patches(self, frames: np.ndarray) -> Patches:
        """Return pictures uint8 [F, H, W, 3] as the vision tower reads them; the last is repeated if F is odd."""
        import cv2

        height, width = resized(*frames.shape[1:3], self._patch * self._merge)
        sized = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in frames]
        sized += sized[-1:] * (-len(sized) % self._pair)
        pixels = (np.stack(sized).astype(np.float32) / 255 - MEAN) / STD
        p, m, pair = self._patch, self._merge, self._pair
        time, high, wide = len(sized) // pair, height // p, width // p
        blocks = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
        blocks = blocks.reshape(time, pair, 3, high // m, m, p, wide // m, m, p)
        values = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(time * high * wide, 3 * pair * p * p)
        return Patches(values, (time, high, wide), (height, width))


def resized(height: int, width: int, unit: int) -> tuple[int, int]:
    """Return the height and width at which the model reads a picture: multiples of ``unit`` near its own size."""
    high, wide = max(unit, round(height / unit) * unit), max(unit, round(width / unit) * unit)
    ratio = (height * width / LARGEST) ** 0.5
    if high * wide > LARGEST:
        return int(height / ratio / unit) * unit, int(width / ratio / unit) * unit
    ratio = (SMALLEST / (height * width)) ** 0.5
    if high * wide < SMALLEST:
        return -int(-height * ratio // unit) * unit, -int(-width * ratio // unit) * unit
    return high, wide
