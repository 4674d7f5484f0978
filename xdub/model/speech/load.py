"""Loading of the published editors' audio encoders from the folders and files of their releases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xdub.config import speech_parts
from xdub.config.network_sections import HUBERT_STATES
from xdub.errors import UserError, loading_pretrained
from xdub.model.speech.encoders import BlockWhisper, JoinedEncoder
from xdub.model.speech.wave_encoders import Hubert, Wav2Vec2
from xdub.perception.network_files import check_finite, load_pretrained, load_weights
from xdub.perception.openai_whisper import read_openai_whisper, transformers_names

if TYPE_CHECKING:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperNetwork

SETTING = "audio.path"
"""Recipe key for messages."""
MASK = ("masked_spec_embed",)
"""Weight that only the pretraining of wav2vec2 and HuBERT uses, and that some releases lack."""


def load_joined(path: str | Path) -> JoinedEncoder:
    """Load Whisper and wav2vec2 from the folder of X-Dub's release, or from a folder with those of transformers."""
    parts = speech_parts(path)
    return JoinedEncoder([BlockWhisper(load_whisper(parts["whisper"])), load_wav2vec2(parts["wav2vec2"])])


def load_whisper(path: Path) -> WhisperNetwork:
    """Load the encoder of a Whisper from OpenAI's file or from a folder of transformers, in fp32."""
    from transformers import WhisperModel

    if path.is_file():
        return _load_openai(path)
    return load_pretrained(WhisperModel, SETTING, path, part="encoder.").encoder


def load_wav2vec2(path: Path) -> Wav2Vec2:
    """Load a wav2vec 2.0 from a folder of transformers."""
    from transformers import Wav2Vec2Model

    _check_normalised(path)
    return Wav2Vec2(load_pretrained(Wav2Vec2Model, SETTING, path, unused=MASK))


def load_hubert(path: str) -> Hubert:
    """Load a HuBERT large from a folder of transformers or by its hub name."""
    from transformers import HubertModel

    _check_normalised(path)
    network = load_pretrained(HubertModel, SETTING, path, unused=MASK)
    blocks = network.config.num_hidden_layers
    if not network.config.do_stable_layer_norm or blocks < HUBERT_STATES[-1]:
        raise UserError(
            f"{SETTING}={path}: holds a HuBERT of {blocks} blocks that is no HuBERT large, whose blocks normalise "
            "their input; use hubert-large-ll60k"
        )
    return Hubert(network)


def _load_openai(path: Path) -> WhisperNetwork:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

    file = read_openai_whisper(path)
    width = file.sizes["n_audio_state"]
    config = WhisperConfig(
        d_model=width,
        num_mel_bins=file.sizes["n_mels"],
        encoder_layers=file.sizes["n_audio_layer"],
        encoder_attention_heads=file.sizes["n_audio_head"],
        encoder_ffn_dim=4 * width,
        max_source_positions=file.sizes["n_audio_ctx"],
    )
    state = transformers_names(file.weights, path)
    check_finite(path, state.items())
    network = Network(config)
    load_weights(network, state, path, "a Whisper of the sizes that it names")
    return network.float()


def _check_normalised(path: str | Path) -> None:
    """Raise UserError if the network's own feature extractor does not normalise the wave."""
    from transformers import Wav2Vec2FeatureExtractor

    with loading_pretrained(SETTING, path):
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(path)
    if not extractor.do_normalize:
        raise UserError(
            f"{SETTING}={path}: its preprocessor_config.json does not normalise the wave, as the published editors "
            "do; copy the file of the same release"
        )
