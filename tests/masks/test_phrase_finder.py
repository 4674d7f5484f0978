"""Qwen2.5-VL and SAM 2: preparation of pictures, answers, boxes, tracking, and both in `prepare`."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from xdub.config import load_recipe
from xdub.data.manifest import read_manifest
from xdub.data.prepare import prepare_videos
from xdub.data.shards import iter_clips
from xdub.errors import UserError
from xdub.masks.face_shape import FaceViews
from xdub.masks.phrase_finder import PhraseFinder
from xdub.masks.segmenter import VideoSegmenter
from xdub.masks.vision_language import PROMPT, VisionLanguageModel, resized
from xdub.media import write_video
from xdub.miniature.face import write_flame, write_smirk
from xdub.miniature.sizes import Sizes
from xdub.miniature.vision import write_qwen, write_sam2

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    writers = {
        "qwen2.5-vl": write_qwen,
        "sam2": write_sam2,
        "flame.npz": write_flame,
        "smirk.pt": write_smirk,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, write in writers.items():
            write(folder / name, Sizes())
    return folder


@pytest.fixture(scope="module")
def model(weights) -> VisionLanguageModel:
    return VisionLanguageModel(weights / "qwen2.5-vl", CPU)


@pytest.fixture(scope="module")
def segmenter(weights) -> VideoSegmenter:
    return VideoSegmenter(weights / "sam2", CPU)


def noise(count: int, height: int = 84, width: int = 112) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_pictures_are_cut_into_patches_as_by_the_models_own_processor(model):
    from transformers import Qwen2VLImageProcessorPil

    frame = noise(1)
    own = model.patches(frame)
    theirs = Qwen2VLImageProcessorPil()(images=list(frame), return_tensors="pt")
    assert own.grid == tuple(theirs["image_grid_thw"][0].tolist()) == (1, 6, 8)
    # This size needs no resizing, so the values are equal.
    assert torch.allclose(own.values, theirs["pixel_values"], atol=1e-5)
    assert resized(1080, 1920, 28) == (560, 1008) and resized(30, 40, 28) == (56, 84)


def test_the_question_of_the_paper_is_asked_about_a_video(model):
    inputs = model.inputs(noise(5), PROMPT, seconds=0.2)
    text = model._tokenizer.decode(inputs["input_ids"][0])
    assert f"<|vision_end|>{PROMPT}<|im_end|>" in text and text.count("<|video_pad|>") == 3 * 3 * 4
    assert inputs["video_grid_thw"].tolist() == [[3, 6, 8]]
    assert inputs["pixel_values_videos"].shape == (3 * 6 * 8, 3 * 2 * 14 * 14)
    assert model.answer(noise(5), PROMPT, seconds=0.2) == model.answer(noise(5), PROMPT, seconds=0.2)


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        ("A microphone.", "A microphone"),
        ("No.", ""),
        ("", ""),
        ("None", ""),
        ("Nothing occludes the face", ""),
        ("a hand\nand a cup", "a hand"),
    ],
)
def test_an_answer_is_a_phrase_or_nothing(model, monkeypatch, answer, phrase):
    monkeypatch.setattr(model, "answer", lambda *args, **options: answer)
    assert model.describe(noise(5)) == phrase


def test_boxes_are_scaled_from_the_resized_picture_and_clipped(model, monkeypatch):
    answer = (
        '```json\n[{"bbox_2d": [14, 28, 42, 56], "label": "mic"}, {"bbox_2d": [-9, 0, 500, 500]},\n'
        '{"bbox_2d": [5, 5, 5, 9]}]\n```'
    )
    monkeypatch.setattr(model, "answer", lambda *args, **options: answer)
    frame = noise(1, 42, 56)[0]
    height, width = model.patches(frame[None]).size
    boxes = model.locate(frame, "mic")
    assert np.allclose(boxes[0], [14 * 56 / width, 28 * 42 / height, 42 * 56 / width, 42])
    assert boxes[1].tolist() == [0, 0, 56, 42] and len(boxes) == 2
    monkeypatch.setattr(model, "answer", lambda *args, **options: "I see no microphone")
    assert model.locate(frame, "mic").shape == (0, 4)


def test_objects_are_followed_in_both_directions(segmenter, monkeypatch):
    network = segmenter._model
    order: list[int] = []
    run = network._run_single_frame_inference

    def watched(*args, **options):
        order.append(options.get("frame_idx", args[1] if len(args) > 1 else None))
        return run(*args, **options)

    monkeypatch.setattr(network, "_run_single_frame_inference", watched)
    # Random weights see no object; their score is made positive.
    head = network.mask_decoder.pred_obj_score_head
    bias = next(layer for name, layer in reversed(list(head.named_parameters())) if name.endswith("bias"))
    before = bias.clone()
    bias.fill_(9.0)
    try:
        masks = segmenter.track(noise(5, 64, 64), 2, np.array([[10, 10, 50, 60]]))
    finally:
        bias.copy_(before)
    assert masks.shape == (5, 64, 64) and set(order) == {0, 1, 2, 3, 4}
    assert not segmenter.track(noise(5, 64, 64), 2, np.zeros((0, 4))).any()


def test_named_objects_are_segmented_inside_the_face_and_a_phrase_without_boxes_is_reported(
    model, segmenter, monkeypatch, caplog
):
    frames = noise(5, 64, 64)
    empty = np.full((5, 478, 3), np.nan, np.float32)
    views = FaceViews(frames=frames, landmarks=np.zeros((5, 68, 2), np.float32), mesh=empty, person=empty)
    face = np.zeros((5, 64, 64), bool)
    face[:, 20:50, 20:50] = True
    finder = PhraseFinder(model, segmenter)
    monkeypatch.setattr(model, "describe", lambda frames: "a microphone")
    looks: list[int] = []

    def locate(frame, phrase):
        looks.append(len(looks))
        return np.array([[0, 0, 40, 40]]) if len(looks) == 3 else np.zeros((0, 4))

    monkeypatch.setattr(model, "locate", locate)
    monkeypatch.setattr(segmenter, "track", lambda frames, first, boxes: np.ones((5, 64, 64), bool))
    assert np.array_equal(finder.find(views, face), face) and len(looks) == 3
    monkeypatch.setattr(model, "locate", lambda frame, phrase: np.zeros((0, 4)))
    with caplog.at_level(logging.WARNING):
        assert not finder.find(views, face).any()
    assert "'a microphone' was named" in caplog.text


def test_prepare_runs_all_four_networks_of_the_paper_from_a_folder_of_weights(weights, tmp_path, monkeypatch):
    from xdub.render.clips import make_clips

    monkeypatch.setattr("xdub.masks.vision_language.MOST_TOKENS", 4)
    pair = next(make_clips(7, [0], size=64, frames=31, full_size=192))
    write_video(tmp_path / "anna.mp4", pair.full, audio=pair.clip.audio, crf=10)
    settings = ["masks.face=flame", "masks.occluders=vlm", "video.size=64", "video.clip_frames=29"]
    recipe = load_recipe("tiny", [*settings, f"weights={weights}"])
    result = prepare_videos([tmp_path / "anna.mp4"], tmp_path / "ds", recipe, workers=1)
    assert result.clips == 1
    clip = next(iter_clips(tmp_path / "ds"))
    assert clip.face_mask.any(axis=(1, 2)).all()
    recorded = read_manifest(tmp_path / "ds").recipe["masks"]
    assert (recorded["face"], recorded["occluders"]) == ("flame", "vlm")
    assert set(recorded["networks"]) == {"flame", "smirk", "vision_language", "segmenter"}
    with pytest.raises(UserError, match="masks.occluders=vlm needs its weights.*sam2"):
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / "qwen2.5-vl").symlink_to(weights / "qwen2.5-vl")
        only = ["masks.occluders=vlm", f"weights={tmp_path / 'w'}"]
        prepare_videos([tmp_path / "anna.mp4"], tmp_path / "other", load_recipe("tiny", only), workers=1)
