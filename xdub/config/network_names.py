"""Names of third-party networks in the folder `Recipe.weights`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdub.config.speech_parts import JOINED

Role = Literal[
    "codec",
    "audio",
    "identity",
    "sync",
    "features",
    "text",
    "prompt",
    "base",
    "flame",
    "smirk",
    "vision_language",
    "segmenter",
]
"""Use of a third-party network."""


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A network that is not in the package."""

    role: Role
    kind: str
    """Value of the recipe's key that selects the network."""
    names: tuple[str, ...]
    """Names of its file or folder in `Recipe.weights`; the first that exists is loaded."""
    description: str
    """Words for what an own path must hold."""
    fetched: bool = False
    """True if `xdub weights fetch` downloads the first of the names."""


NETWORKS = (
    NetworkFile(
        role="codec",
        kind="wan",
        names=("wan2.1-vae", "Wan2.1_VAE.pth"),
        fetched=True,
        description="a folder or hub name of a diffusers AutoencoderKLWan (Wan 2.1), or a file Wan2.1_VAE.pth",
    ),
    NetworkFile(
        role="codec",
        kind="wan2.2",
        names=("wan2.2-vae", "Wan2.2_VAE.safetensors", "Wan2.2_VAE.pth"),
        fetched=True,
        description="a folder or hub name of a diffusers AutoencoderKLWan (Wan 2.2), or a file Wan2.2_VAE.safetensors",
    ),
    NetworkFile(
        role="audio",
        kind="whisper",
        names=("whisper",),
        description="tiny.en, or a folder or hub name of a transformers Whisper model",
    ),
    NetworkFile(
        role="audio",
        kind=JOINED,
        names=("xdub-speech", "xdub-public"),
        fetched=True,
        description="a folder with whisper/large-v2.pt and wav2vec2-base-960h, as in X-Dub's release",
    ),
    NetworkFile(
        role="audio",
        kind="hubert",
        names=("hubert-large-ll60k",),
        fetched=True,
        description="a folder or hub name of a transformers HuBERT large",
    ),
    NetworkFile(
        role="identity",
        kind="arcface",
        names=("arcface.pth",),
        description="the backbone.pth of an ArcFace r50 or r100 (non-commercial research licence)",
    ),
    NetworkFile(
        role="sync",
        kind="syncnet",
        names=("syncnet.safetensors", "syncnet_v2.model"),
        description="the export of `xdub train syncnet` on your own clips, or `syncnet_v2.model`",
    ),
    NetworkFile(
        role="features", kind="clip", names=("clip",), description="a folder or hub name of a CLIP model"
    ),
    NetworkFile(
        role="text",
        kind="umt5",
        names=("umt5",),
        fetched=True,
        description="a folder or hub name of a transformers UMT5 encoder",
    ),
    NetworkFile(
        role="prompt",
        kind="embedded",
        names=("prompt.safetensors", "null_prompt_emb.pt"),
        description="the file of `xdub weights prompt`, or TBDub's null_prompt_emb.pt",
    ),
    NetworkFile(
        role="base",
        kind="wan",
        names=("wan",),
        description="a folder or file of Wan 2.1 T2V, Wan 2.2 TI2V, X-Dub or TBDub",
    ),
    NetworkFile(
        role="flame",
        kind="flame",
        names=("flame.npz", "flame2020.npz", "generic_model.pkl", "flame2023.pkl"),
        description="the file of FLAME 2020 or 2023, .pkl or .npz (non-commercial research licence)",
    ),
    NetworkFile(
        role="smirk",
        kind="smirk",
        names=("smirk.pt", "SMIRK_em1.pt"),
        description="the checkpoint SMIRK_em1.pt of SMIRK",
    ),
    NetworkFile(
        role="vision_language",
        kind="qwen2.5-vl",
        names=("qwen2.5-vl", "Qwen2.5-VL-7B-Instruct"),
        description="a folder or hub name of a transformers Qwen2.5-VL, such as Qwen/Qwen2.5-VL-7B-Instruct",
    ),
    NetworkFile(
        role="segmenter",
        kind="sam2",
        names=("sam2", "sam2.1-hiera-large"),
        description="a folder or hub name of a transformers SAM 2 video model, such as facebook/sam2.1-hiera-large",
    ),
)
"""All networks with a name in `Recipe.weights`. Other networks are in the package or in its registry."""
