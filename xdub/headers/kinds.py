"""Checks of one network each: kind, sizes and completeness, as far as headers and configurations show them.

Every check returns words for the network that was found, or raises `Fault`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from xdub.config import Recipe
from xdub.config.network_sections import CODEC_FACTORS
from xdub.config.shipped import shipped_weights
from xdub.geometry import CodecGeometry
from xdub.headers.files import TRIAL, Fault, model_name, read_config, read_header, read_weights
from xdub.headers.speech import hubert, whisper, whisper_and_wav2vec2
from xdub.headers.wan_vae import original_geometry

WAN_CHANNELS = {"wan": 16, "wan2.2": 48}
"""Kind of codec -> channels of its latents."""
STAGES = tuple(f"layer{number}" for number in range(1, 5))
"""Stages of an ArcFace backbone."""

Inspect = Callable[[Recipe, Path], str]
"""(recipe, file or folder) -> words for the network."""


def linear_codec(recipe: Recipe, path: Path) -> str:
    """Check a linear codec's bases, whose sizes are its channels and factors."""
    shapes = read_header(path, "fit one with `python -m xdub.fit.codec`").shapes
    try:
        (channels, head), tail = shapes["first"], shapes["rest"][1]
    except (KeyError, ValueError) as error:
        raise Fault(f"{path}: is not a linear codec", "fit one with `python -m xdub.fit.codec`") from error
    space = round((head / 3) ** 0.5)
    return _codec_words(recipe, path, CodecGeometry(channels=channels, time=tail // head, space=space))


def wan_codec(recipe: Recipe, path: Path) -> str:
    """Check Wan's autoencoder: a folder of diffusers, one of a pipeline that has it below vae/, or a release's file."""
    kind = recipe.codec.kind
    fix = f"put the diffusers folder of Wan's VAE there, or set codec.path; {TRIAL}"
    if path.is_file():
        return _codec_words(recipe, path, original_geometry(path, fix))
    folder = path if (path / "config.json").is_file() or not (path / "vae").is_dir() else path / "vae"
    config = read_config(folder, "config.json", fix)
    if config.get("_class_name") != "AutoencoderKLWan":
        raise Fault(f"codec.kind={kind}: {folder} holds {model_name(config)}, not an AutoencoderKLWan", fix)
    geometry = CodecGeometry(
        channels=config.get("z_dim", 16),
        # Configurations of Wan 2.1 from before the release of 2.2 have no factors.
        time=config.get("scale_factor_temporal", 4),
        space=config.get("scale_factor_spatial", 8),
    )
    words = _codec_words(recipe, path, geometry)
    shapes = read_weights(folder, "diffusion_pytorch_model", fix)
    latent = shapes.get("post_quant_conv.weight", ())
    if latent[:1] != (geometry.channels,):
        raise Fault(
            f"{folder}: its weights are not those of its config.json ({geometry.channels} channels)", fix
        )
    return words


def _codec_words(recipe: Recipe, path: Path, geometry: CodecGeometry) -> str:
    """Return words for a codec. Raise Fault if its factors or channels are not the recipe's."""
    codec, expected = recipe.codec, recipe.codec.geometry
    if (geometry.time, geometry.space) != (expected.time, expected.space):
        kinds = [
            kind for kind, factors in CODEC_FACTORS.items() if factors == (geometry.time, geometry.space)
        ]
        kind = next((kind for kind in kinds if WAN_CHANNELS.get(kind) == geometry.channels), None)
        other = f"--set codec.kind={kind} --set codec.channels={geometry.channels}, or " if kind else ""
        raise Fault(
            f"codec.kind={codec.kind} has latents of {expected.time} frames and {expected.space} px, but those of the "
            f"codec at {path} are of {geometry.time} frames and {geometry.space} px",
            f"{other}put the VAE of kind {codec.kind} there",
        )
    if geometry.channels != codec.channels:
        raise Fault(
            f"codec.channels={codec.channels}, but the codec at {path} has {geometry.channels}",
            f"--set codec.channels={geometry.channels}",
        )
    return f"{codec.kind}: {geometry.channels} channels, a latent covers {geometry.time} frames and {geometry.space} px"


def syncnet(recipe: Recipe, path: Path) -> str:
    """Check a SyncNet of any kind, which is recognised by its content."""
    from xdub.perception.syncnet.load import MOST_BANDS, OwnSyncNet, TinySyncNet
    from xdub.perception.syncnet.v2 import TOWERS

    fix = "train one with `xdub train syncnet`, or give syncnet_v2.model"
    header = read_header(path, fix)
    kind = header.metadata.get("network")
    if kind in (OwnSyncNet.name, TinySyncNet.name):
        sizes = json.loads(header.metadata.get("config", "{}"))
        bands = sizes.get("audio_dim", 0)
        if bands > MOST_BANDS:
            raise Fault(
                f"perception.sync={recipe.perception.sync}: the SyncNet at {path} reads {bands} features of an audio "
                "encoder, but a SyncNet computes its own from the wave",
                fix,
            )
        size = f"{sizes['size']} px, " if "size" in sizes else ""
        return f"{kind}: {size}{sizes.get('frames', 5)} frames"
    towers = {name.partition(".")[0] for name in header.shapes}
    if towers != set(TOWERS):
        content = kind or f"tensors of {', '.join(sorted(towers)[:3])}"
        raise Fault(f"perception.sync={recipe.perception.sync}: {path} holds {content}, not a SyncNet", fix)
    lips = header.shapes.get("netcnnlip.0.weight", ())
    if lips[1:] != (3, 5, 7, 7):
        raise Fault(f"{path}: a SyncNet v2 of another layout (first lip layer {list(lips)})", fix)
    return "syncnet v2: 224 px, 5 frames"


def arcface(recipe: Recipe, path: Path) -> str:
    """Check an ArcFace backbone."""
    fix = f"give the backbone.pth of an ArcFace r50 or r100 as perception.identity_path; {TRIAL}"
    shapes = read_header(path, fix).shapes
    parts = {name.partition(".")[0] for name in shapes}
    if not {*STAGES, "conv1", "fc", "features"} <= parts or "fc.weight" not in shapes:
        content = ", ".join(sorted(parts)[:3]) or "nothing"
        raise Fault(
            f"perception.identity=arcface: {path} holds tensors of {content}, not an ArcFace backbone", fix
        )
    depths = [
        len({name.split(".")[1] for name in shapes if name.startswith(f"{stage}.")}) for stage in STAGES
    ]
    return f"arcface: {'-'.join(map(str, depths))} blocks, {shapes['fc.weight'][0]} numbers"


def clip(recipe: Recipe, path: Path) -> str:
    """Check a transformers folder with CLIP's image encoder."""
    fix = f"put a transformers CLIP there, or set perception.features_path; {TRIAL}"
    config = read_config(path, "config.json", fix)
    if config.get("model_type") not in ("clip", "clip_vision_model"):
        raise Fault(f"perception.features=clip: {path} holds {model_name(config)}, not a CLIP", fix)
    vision = config.get("vision_config", config)
    shapes = read_weights(path, "model", fix)
    if not any(name.endswith("visual_projection.weight") for name in shapes):
        raise Fault(f"{path}: its weights have no image encoder with a projection", fix)
    return f"clip: width {vision.get('hidden_size', '?')}, {vision.get('image_size', '?')} px"


def umt5(recipe: Recipe, path: Path) -> str:
    """Check a transformers folder with a UMT5 encoder, whose width must be the recipe's ``model.text_dim``."""
    fix = f"put a transformers UMT5 encoder there; {TRIAL}"
    config = read_config(path, "config.json", fix)
    if config.get("model_type") != "umt5":
        raise Fault(f"{path}: holds {model_name(config)}, not a UMT5", fix)
    if config.get("d_model") != recipe.model.text_dim:
        raise Fault(
            f"model.text_dim={recipe.model.text_dim}, but the UMT5 at {path} has width {config.get('d_model')}",
            f"--set model.text_dim={config.get('d_model')}",
        )
    read_weights(path, "model", fix)
    return f"umt5: width {config['d_model']}"


def prompt(recipe: Recipe, path: Path) -> str:
    """Check an embedded prompt, whose width must be the recipe's ``model.text_dim``."""
    fix = f"write it with `xdub weights prompt`; {TRIAL}"
    header = read_header(path, fix)
    rows = [shape for shape in header.shapes.values() if len(shape) in (2, 3)]
    if len(header.shapes) != 1 or not rows:
        raise Fault(f"{path}: is not an embedded prompt, but holds {len(header.shapes)} tensors", fix)
    if rows[0][-1] != recipe.model.text_dim:
        raise Fault(
            f"model.text_dim={recipe.model.text_dim}, but the prompt at {path} has width {rows[0][-1]}",
            f"--set model.text_dim={rows[0][-1]}, or embed it with the text encoder of the base",
        )
    text = header.metadata.get("prompt")
    return f"prompt: {rows[0][-2]} rows of width {rows[0][-1]}" + ("" if text is None else f", {text!r}")


def packaged(role: str) -> Path | None:
    """Return the packaged file of a role, None for a role whose packaged network has no file."""
    from xdub.perception.syncnet.load import PACKAGED

    names = {"codec": "linear_codec_48.safetensors", "sync": PACKAGED}
    return shipped_weights(names[role]) if role in names else None


INSPECTORS: dict[tuple[str, str], Inspect] = {
    ("codec", "linear"): linear_codec,
    ("codec", "wan"): wan_codec,
    ("codec", "wan2.2"): wan_codec,
    ("audio", "whisper"): whisper,
    ("audio", "whisper+wav2vec2"): whisper_and_wav2vec2,
    ("audio", "hubert"): hubert,
    ("sync", "tiny"): syncnet,
    ("sync", "syncnet"): syncnet,
    ("identity", "arcface"): arcface,
    ("features", "clip"): clip,
}
"""(role, kind) -> check of its file. Other kinds have no file, or one in the registry, which has a checksum."""
