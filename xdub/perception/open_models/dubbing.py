"""Registry entries of the published dubbing editors, X-Dub and TBDub, and of the speech encoders that they read.

Their repositories publish no hashes that are known here, so the expected signature of the tensors proves the
transformers, and the hashes that the hub states are recorded at the download.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from xdub.perception.open_models import shapes
from xdub.perception.open_models.entry import Licence, ModelFile, OpenModel
from xdub.perception.open_models.hub import HubFile, WebFile
from xdub.perception.open_models.wan import hub_files

XDUB_TERMS = Licence(
    name="not stated in one place",
    url="https://huggingface.co/KlingTeam/X-Dub",
    notice="the README permits academic research and technical demonstration only, the repository has no LICENSE file, "
    "and the base Wan2.2-TI2V-5B is Apache-2.0; read the model card before you use or share results",
)
TBDUB_TERMS = Licence(
    name="Apache-2.0 (TaoLiveAIGC TBDub)",
    url="https://huggingface.co/TaoLiveAIGC/TBDub",
    identifier="apache-2.0",
    notice="its NOTICE says that it is derived from X-Dub, whose own terms are not stated in one place "
    f"({XDUB_TERMS.url})",
)
OPENAI = Licence(
    name="MIT (OpenAI Whisper)", url="https://github.com/openai/whisper/blob/main/LICENSE", identifier="mit"
)
META = Licence(
    name="Apache-2.0 (Meta AI)",
    url="https://huggingface.co/facebook/wav2vec2-base-960h",
    identifier="apache-2.0",
)
BOTH_SPEECH = Licence(
    name=f"{OPENAI.name} and {META.name}",
    url=OPENAI.url,
    notice=f"whisper/ is MIT, wav2vec2-base-960h/ is Apache-2.0 ({META.url})",
)
WAV2VEC2 = ("facebook/wav2vec2-base-960h", "22aad52d435eb6dbaf354bdad9b0da84ce7d6156")
HUBERT = ("facebook/hubert-large-ll60k", "main")
XDUB = ("KlingTeam/X-Dub", "main")
TBDUB = ("TaoLiveAIGC/TBDub", "main")
VAE_2_2 = "e1de6c02cdac79f8b739f4d3698cd216"
"""Signature of Wan 2.2's autoencoder with the original names."""
WHISPER_HASH = "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524"
"""Hash of Whisper large-v2, which is part of its address."""
WHISPER_URL = f"https://openaipublic.azureedge.net/main/whisper/models/{WHISPER_HASH}/large-v2.pt"


def _estimated(repo: tuple[str, str], *rows: tuple[str, int], to: str = "") -> tuple[ModelFile, ...]:
    """Return files whose sizes are estimates; ``to`` is the folder below the model's in which they are stored."""
    return tuple(
        ModelFile(
            name=f"{to}{name}",
            source=HubFile(repo=repo[0], revision=repo[1], file=name),
            size=size,
            exact=False,
        )
        for name, size in rows
    )


def _below(folder: str, files: tuple[ModelFile, ...]) -> tuple[ModelFile, ...]:
    """Return the same files in a folder of another model."""
    return tuple(replace(file, name=f"{folder}/{file.name}") for file in files)


WHISPER_FILES = (
    ModelFile(
        name="large-v2.pt",
        source=WebFile(url=WHISPER_URL),
        size=3_087_000_000,
        sha256=WHISPER_HASH,
        exact=False,
    ),
)
WAV2VEC2_FILES = hub_files(
    WAV2VEC2,
    """
    config.json 1596 d3ec255c063d9f95057b553b19c20135b259875834a4fe9deb218a6be25b4cf3
    preprocessor_config.json 159 b225d617c025463b9e157e06afea8b90dc7078fc70b013c533328423e0486b4a
    model.safetensors 377607901 8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a
    """,
)
HUBERT_ROWS = (
    ("config.json", 1_400),
    ("preprocessor_config.json", 213),
    ("pytorch_model.bin", 1_262_000_000),
)
VAE_FILE = _estimated(XDUB, ("Wan2.2_VAE.safetensors", 1_409_400_000))
"""Wan 2.2's autoencoder in bf16, which X-Dub's repository has and TBDub reads as well."""


def _tbdub(kind: str) -> OpenModel:
    weights = f"tbdub_{kind}.safetensors"
    return OpenModel(
        role=f"tbdub-{kind}",
        purpose=f"`--model tbdub-{kind}:DIR`: TBDub's {kind}, with null prompt, autoencoder and HuBERT",
        licence=TBDUB_TERMS,
        files=_estimated(
            TBDUB, ("config.json", 3_000), ("null_prompt_emb.pt", 4_200_000), (weights, 12_591_500_000)
        )
        + VAE_FILE
        + _estimated(HUBERT, *HUBERT_ROWS, to="hubert-large-ll60k/"),
        signature="da12f645b7edaedb855f6bd8cee7b24c",
        signed=(weights,),
        shapes=partial(shapes.editor, 4096),
    )


DUBBING: tuple[OpenModel, ...] = (
    OpenModel(
        role="xdub-public",
        purpose="`--model xdub-public:DIR`: X-Dub's public editor (Wan 2.2 5B), its autoencoder, Whisper, wav2vec2",
        licence=XDUB_TERMS,
        files=_estimated(XDUB, ("X-Dub_model.safetensors", 12_585_200_000))
        + VAE_FILE
        + _below("whisper", WHISPER_FILES)
        + _below("wav2vec2-base-960h", WAV2VEC2_FILES),
        signature="0196e3de8b3ccced7e7e939e7f901e0b",
        signed=("X-Dub_model.safetensors",),
        shapes=partial(shapes.editor, 2048),
    ),
    _tbdub("teacher"),
    _tbdub("student"),
    OpenModel(
        role="wan2.2-vae-bf16",
        purpose="Wan 2.2's autoencoder in bf16 with the original names, as X-Dub publishes it",
        licence=XDUB_TERMS,
        files=VAE_FILE,
        signature=VAE_2_2,
        signed=("Wan2.2_VAE.safetensors",),
    ),
    OpenModel(
        role="xdub-speech",
        purpose="audio.kind=whisper+wav2vec2: both encoders in the folder that a recipe's `weights` holds",
        licence=BOTH_SPEECH,
        files=_below("whisper", WHISPER_FILES) + _below("wav2vec2-base-960h", WAV2VEC2_FILES),
    ),
    OpenModel(
        role="whisper-large-v2",
        purpose="audio.kind=whisper+wav2vec2: Whisper large-v2 in OpenAI's format",
        licence=OPENAI,
        files=WHISPER_FILES,
    ),
    OpenModel(
        role="wav2vec2-base-960h",
        purpose="audio.kind=whisper+wav2vec2: wav2vec2 base",
        licence=META,
        files=WAV2VEC2_FILES,
    ),
    OpenModel(
        role="hubert-large-ll60k",
        purpose="audio.kind=hubert: HuBERT large, layers 9 to 12",
        licence=replace(META, url="https://huggingface.co/facebook/hubert-large-ll60k"),
        files=_estimated(HUBERT, *HUBERT_ROWS),
    ),
)
"""Entries of the dubbing editors and their speech encoders."""
