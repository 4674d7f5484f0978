"""Checks of audio encoders: Whisper, the two networks of X-Dub, and TBDub's HuBERT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from xdub.config import Recipe, speech_parts
from xdub.config.network_sections import HUBERT_STATES
from xdub.geometry import ROWS_PER_FRAME, SAMPLES_PER_FRAME
from xdub.headers.files import TRIAL, Fault, model_name, read_config, read_weights

WHISPER_NAMES = {384: "tiny", 512: "base", 768: "small", 1024: "medium", 1280: "large"}
"""Width of a Whisper encoder -> its name."""
WHISPER_ROWS = 1500
"""Rows of features of 30 s at 50 a second."""


def whisper(recipe: Recipe, path: Path) -> str:
    """Check a transformers folder with Whisper and its feature extractor."""
    width, bands = _whisper_folder(path, f"audio.kind={recipe.audio.kind}")
    if width != recipe.audio.dim:
        raise wrong_width(recipe, f"the Whisper at {path}", width)
    fix = f"copy it from the model's release; {TRIAL}"
    extractor = read_config(path, "preprocessor_config.json", fix)
    extractor_bands = extractor.get("feature_size", 80)
    if extractor_bands != bands:
        raise Fault(
            f"{path}: preprocessor_config.json has {extractor_bands} mel bands, but its encoder reads {bands}",
            "copy preprocessor_config.json from the same release as the weights",
        )
    return f"whisper: width {width}, {bands} mel bands"


def whisper_and_wav2vec2(recipe: Recipe, path: Path) -> str:
    """Check the folder with Whisper and wav2vec2 of X-Dub, in the form of its release or of transformers."""
    parts, kind = speech_parts(path), recipe.audio.kind
    file = parts["whisper"]
    if file.is_file():
        width, bands = _whisper_file(file)
    else:
        width, bands = _whisper_folder(file, f"audio.kind={kind}")
    config = _wave_network(parts["wav2vec2"], "wav2vec2", kind)
    second = int(config["hidden_size"])
    if width + second != recipe.audio.dim:
        raise Fault(
            f"audio.dim={recipe.audio.dim}, but Whisper and wav2vec2 at {path} have widths {width} + {second}",
            f"--set audio.dim={width + second}, or use Whisper large-v2 and wav2vec2-base-960h (2048)",
        )
    return f"{kind}: widths {width} + {second}, {bands} mel bands"


def hubert(recipe: Recipe, path: Path) -> str:
    """Check a transformers folder with a HuBERT large."""
    config = _wave_network(path, "hubert", recipe.audio.kind)
    width, blocks = int(config["hidden_size"]), int(config.get("num_hidden_layers", 12))
    if not config.get("do_stable_layer_norm", False) or blocks < HUBERT_STATES[-1]:
        raise Fault(
            f"audio.kind=hubert: {path} holds a HuBERT of {blocks} blocks that is no HuBERT large, whose blocks "
            "normalise their input",
            f"use hubert-large-ll60k; {TRIAL}",
        )
    states = len(HUBERT_STATES)
    if states * width != recipe.audio.dim:
        raise Fault(
            f"audio.dim={recipe.audio.dim}, but {states} hidden states of the HuBERT at {path} have "
            f"{states} x {width}",
            f"--set audio.dim={states * width}, or use HuBERT large (4096)",
        )
    return f"hubert: {states} of {blocks} hidden states of width {width}"


def wrong_width(recipe: Recipe, encoder: str, width: int) -> Fault:
    """Return the error for an audio encoder whose width is not the recipe's."""
    published = WHISPER_NAMES.get(recipe.audio.dim)
    name = f"{published} (width {recipe.audio.dim})" if published else f"of width {recipe.audio.dim}"
    return Fault(
        f"audio.dim={recipe.audio.dim}, but {encoder} has width {width}",
        f"--set audio.dim={width}, or use Whisper {name}",
    )


def _whisper_folder(path: Path, setting: str) -> tuple[int, int]:
    """Return width and mel bands of the Whisper in a folder of transformers."""
    fix = f"put a transformers Whisper there, or set audio.path; {TRIAL}"
    config = read_config(path, "config.json", fix)
    if config.get("model_type") != "whisper":
        raise Fault(f"{setting}: {path} holds {model_name(config)}, not a Whisper", fix)
    width, bands = int(config.get("d_model", 0)), int(config.get("num_mel_bins", 80))
    rows = config.get("max_source_positions", WHISPER_ROWS)
    if rows != WHISPER_ROWS:
        raise Fault(f"{path}: its encoder has {rows} rows, not {WHISPER_ROWS} for 30 s", fix)
    shapes = read_weights(path, "model", fix)
    first = next(
        (shape for name, shape in shapes.items() if name.rpartition("encoder.")[2] == "conv1.weight"), ()
    )
    if first[:2] != (width, bands):
        raise Fault(
            f"{path}: its weights are not those of its config.json (width {width}, {bands} mel bands)", fix
        )
    return width, bands


def _whisper_file(path: Path) -> tuple[int, int]:
    """Return width and mel bands of the Whisper in OpenAI's file."""
    from xdub.perception.openai_whisper import read_openai_whisper

    file = read_openai_whisper(path)
    width, bands = file.sizes["n_audio_state"], file.sizes["n_mels"]
    first = file.weights.get("encoder.conv1.weight")
    if file.sizes["n_audio_ctx"] != WHISPER_ROWS or first is None or tuple(first.shape[:2]) != (width, bands):
        raise Fault(
            f"{path}: its weights are not those of its dims (width {width}, {bands} mel bands, {WHISPER_ROWS} rows)",
            "copy or download OpenAI's large-v2.pt again",
        )
    return width, bands


def _wave_network(path: Path, model: str, kind: str) -> dict[str, Any]:
    """Return the configuration of a wav2vec2 or HuBERT in a folder of transformers, with a row every 20 ms."""
    fix = f"put a transformers {model} there, or set audio.path; {TRIAL}"
    config = read_config(path, "config.json", fix)
    if config.get("model_type") != model:
        raise Fault(f"audio.kind={kind}: {path} holds {model_name(config)}, not a {model}", fix)
    stride = math.prod(config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2)))
    if stride != SAMPLES_PER_FRAME // ROWS_PER_FRAME:
        raise Fault(f"{path}: its rows are {stride} samples apart, not 320 for 50 rows a second", fix)
    extractor = read_config(path, "preprocessor_config.json", f"copy it from the model's release; {TRIAL}")
    if not extractor.get("do_normalize", True):
        raise Fault(
            f"{path}: its preprocessor_config.json does not normalise the wave, as the published editors do",
            "copy the file of the same release",
        )
    shapes = read_weights(path, "model", fix)
    projected = next(
        (shape for name, shape in shapes.items() if name.endswith("feature_projection.projection.weight")), ()
    )
    if projected[:1] != (config.get("hidden_size"),):
        raise Fault(f"{path}: its weights are not those of its config.json", fix)
    return config
