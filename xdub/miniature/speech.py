"""Builders of the published editors' audio encoders, in the formats of their releases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xdub.config.network_sections import HUBERT_STATES
from xdub.config.speech_parts import SPEECH_PARTS
from xdub.miniature.sizes import BANDS, Sizes
from xdub.perception.openai_whisper import openai_names

WHISPER_ROWS = 1500
"""Rows of features of 30 s."""
VOCABULARY = 32
"""Letters of wav2vec2's output layer, which no phase reads."""
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
"""Name of a part of a normed weight in today's torch -> its name in the releases."""


def write_joined(path: Path, sizes: Sizes) -> None:
    """Write Whisper as OpenAI does, and wav2vec2 with its letters as in its release."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    file, folder = (path / names[0] for names in SPEECH_PARTS.values())
    file.parent.mkdir(parents=True)
    write_openai_whisper(file, sizes.joined[0], sizes.joined_heads[0])
    config = Wav2Vec2Config(
        **_wave_arguments(sizes.joined[1], sizes.joined_heads[1], sizes.wave_channels),
        num_hidden_layers=1,
        vocab_size=VOCABULARY,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def write_openai_whisper(path: Path, width: int, heads: int) -> None:
    """Write a Whisper with one block in its encoder as OpenAI's file, in fp16; of the decoder it has the embedding."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=width, encoder_layers=1, encoder_attention_heads=heads, encoder_ffn_dim=4 * width
    )
    weights = openai_names(WhisperEncoder(config).state_dict())
    weights["decoder.token_embedding.weight"] = torch.randn(VOCABULARY, width)
    dims = {"n_mels": BANDS, "n_audio_ctx": WHISPER_ROWS, "n_audio_state": width, "n_audio_head": heads}
    dims |= {"n_audio_layer": 1, "n_vocab": VOCABULARY, "n_text_ctx": 448, "n_text_state": width}
    dims |= {"n_text_head": heads, "n_text_layer": 0}
    torch.save({"dims": dims, "model_state_dict": {name: v.half() for name, v in weights.items()}}, path)


def write_hubert(path: Path, sizes: Sizes) -> None:
    """Write a HuBERT of the large kind as its release stores it: weights that torch saved, under older names."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    config = HubertConfig(
        **_wave_arguments(sizes.hubert, sizes.hubert_heads, sizes.wave_channels),
        num_hidden_layers=HUBERT_STATES[-1],
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
    )
    path.mkdir(parents=True)
    config.architectures = [HubertModel.__name__]
    config.save_pretrained(path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(path)
    torch.save(_old_names(HubertModel(config)), path / "pytorch_model.bin")


def _wave_arguments(width: int, heads: int, channels: int) -> dict[str, Any]:
    """Return the sizes that wav2vec2 and HuBERT share."""
    return dict(
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        conv_dim=(channels,) * 7,
        num_conv_pos_embedding_groups=math.gcd(16, width),
    )


def _old_names(network: nn.Module) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in network.state_dict().items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        state[name] = value
    return state
