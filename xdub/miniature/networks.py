"""Builders: the real classes with small configurations, saved as their authors' releases are.

Every function writes one network of random weights, drawn from torch's current generator, to a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from xdub.config.weight_files import Role
from xdub.miniature.face import write_flame, write_smirk
from xdub.miniature.sizes import Sizes
from xdub.miniature.speech import write_hubert, write_joined
from xdub.miniature.vision import write_qwen, write_sam2

VOCABULARY = 64
"""Tokens of the text towers, which no phase reads."""
WAN_2_2: Mapping[str, Any] = dict(
    in_channels=12, out_channels=12, patch_size=2, is_residual=True, z_dim=48, scale_factor_spatial=16,
    latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
)  # fmt: skip
"""Arguments of diffusers' AutoencoderKLWan for the VAE of Wan 2.2, apart from its widths; the defaults are Wan 2.1."""


def write_wan_2_1(path: Path, sizes: Sizes) -> None:
    """Write the VAE of Wan 2.1: 16 channels, 4 frames, 8 px."""
    _write_vae(path, base_dim=sizes.vae, num_res_blocks=sizes.vae_blocks)


def write_wan_2_2(path: Path, sizes: Sizes) -> None:
    """Write the VAE of Wan 2.2: 48 channels, 4 frames, 16 px, pixels folded by 2 and residual resampling."""
    _write_vae(
        path,
        base_dim=sizes.vae,
        decoder_base_dim=sizes.vae_decoder,
        num_res_blocks=sizes.vae_blocks,
        **WAN_2_2,
    )


def _write_vae(path: Path, **arguments: Any) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    AutoencoderKLWan(**arguments).save_pretrained(path)


def write_whisper(path: Path, sizes: Sizes) -> None:
    """Write a Whisper with its feature extractor: 30 s of sound, 1,500 rows."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=sizes.whisper,
        encoder_layers=1,
        encoder_attention_heads=sizes.whisper_heads,
        encoder_ffn_dim=4 * sizes.whisper,
        decoder_layers=1,
        decoder_attention_heads=sizes.whisper_heads,
        decoder_ffn_dim=4 * sizes.whisper,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(config).save_pretrained(path)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(path)


def write_clip(path: Path, sizes: Sizes) -> None:
    """Write a CLIP with both towers."""
    from transformers import CLIPConfig, CLIPModel

    tower = dict(
        hidden_size=sizes.clip,
        intermediate_size=4 * sizes.clip,
        num_hidden_layers=1,
        num_attention_heads=sizes.clip_heads,
        projection_dim=sizes.clip_projection,
    )
    config = CLIPConfig(
        text_config=tower | dict(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0),
        vision_config=tower | dict(image_size=sizes.clip_image, patch_size=sizes.clip_patch),
        projection_dim=sizes.clip_projection,
    )
    CLIPModel(config).save_pretrained(path)


def write_arcface(path: Path, sizes: Sizes) -> None:
    """Write the state dict of an ArcFace iresnet with one block in each stage."""
    from xdub.perception.identity.arcface import ArcFaceIdentity

    network = ArcFaceIdentity((1, 1, 1, 1), widths=sizes.arcface, embedding=sizes.arcface_embedding)
    torch.save(dict(network.state_dict()), path)


def write_syncnet(path: Path, sizes: Sizes) -> None:
    """Write the state dict of a SyncNet v2."""
    from xdub.perception.syncnet.v2 import SyncNetV2, SyncNetV2Widths

    width = sizes.syncnet
    widths = (
        SyncNetV2Widths(audio=(width,) * 6, lip=(width,) * 6, hidden=2 * width, embed=4 * width)
        if width
        else SyncNetV2Widths()
    )
    torch.save(dict(SyncNetV2(widths).state_dict()), path)


def write_umt5(path: Path, sizes: Sizes) -> None:
    """Write the encoder of a UMT5 and a tokenizer of single letters."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        d_model=sizes.text,
        d_kv=sizes.text // sizes.text_heads,
        d_ff=5 * sizes.text // 2,
        num_layers=1,
        num_decoder_layers=0,
        num_heads=sizes.text_heads,
        vocab_size=VOCABULARY,
    )
    UMT5EncoderModel(config).save_pretrained(path)
    _write_tokenizer(path)


def _write_tokenizer(path: Path) -> None:
    """Write a tokenizer in UMT5's format: letters, digits and marks, and the end token behind every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    letters = [*"\u2581abcdefghijklmnopqrstuvwxyz0123456789.,!?'-:;()"][: VOCABULARY - len(special)]
    vocabulary = [(token, 0.0) for token in special] + [(letter, -1.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)


def write_embedded_prompt(path: Path, sizes: Sizes) -> None:
    """Write a null prompt of random numbers: one row, and the zero rows behind it."""
    from safetensors.torch import save_file

    save_file({"rows": torch.randn(1, sizes.text) / sizes.text**0.5}, path, metadata={"padding": "511"})


def write_wan_5b(path: Path, sizes: Sizes) -> None:
    """Write a transformer of the family of Wan 2.2 TI2V-5B, with the widths of the recipe `mini-wan`."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=48,
        out_channels=48,
        text_dim=sizes.text,
        ffn_dim=128,
        num_layers=2,
    ).save_pretrained(path)


WRITERS: Mapping[tuple[Role, str], tuple[str, Callable[[Path, Sizes], None]]] = {
    ("codec", "wan"): ("diffusers AutoencoderKLWan (Wan 2.1)", write_wan_2_1),
    ("codec", "wan2.2"): ("diffusers AutoencoderKLWan (Wan 2.2)", write_wan_2_2),
    ("audio", "whisper"): ("transformers Whisper", write_whisper),
    ("audio", "whisper+wav2vec2"): ("OpenAI's Whisper file and transformers wav2vec2", write_joined),
    ("audio", "hubert"): ("transformers HuBERT", write_hubert),
    ("identity", "arcface"): ("state dict of ArcFace iresnet", write_arcface),
    ("sync", "syncnet"): ("state dict of SyncNet v2", write_syncnet),
    ("features", "clip"): ("transformers CLIP", write_clip),
    ("text", "umt5"): ("transformers UMT5 encoder with tokenizer", write_umt5),
    ("prompt", "embedded"): ("embedded null prompt", write_embedded_prompt),
    ("base", "wan"): ("diffusers WanTransformer3DModel", write_wan_5b),
    ("flame", "flame"): ("arrays of FLAME", write_flame),
    ("smirk", "smirk"): ("checkpoint of SMIRK", write_smirk),
    ("vision_language", "qwen2.5-vl"): ("transformers Qwen2.5-VL with tokenizer", write_qwen),
    ("segmenter", "sam2"): ("transformers SAM 2 for video", write_sam2),
}
"""(role, kind) of an entry in `xdub.config.weight_files.NETWORKS` -> (format, writer)."""
OTHER_NAMES: Mapping[tuple[Role, str], str] = {("sync", "syncnet"): "syncnet_v2.model"}
"""(role, kind) of a network whose miniature does not have the first of its names -> name in the folder of weights."""
