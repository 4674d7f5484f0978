"""Builders of the networks that find occluders: Qwen2.5-VL with its tokenizer, and SAM 2 for video."""

from __future__ import annotations

from pathlib import Path

from xdub.files.atomic import write_json
from xdub.miniature.sizes import Sizes

SPECIAL = (
    *(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
    ),
    *(
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
    ),
    *("<|image_pad|>", "<|video_pad|>"),
)
"""Special tokens of Qwen2.5-VL, in the order of their numbers."""
MEMORY = 64
"""Width of SAM 2's memory, which its classes have as a constant."""
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""Content of Qwen2.5-VL's preprocessor_config.json."""


def write_qwen(path: Path, sizes: Sizes) -> None:
    """Write a Qwen2.5-VL with its tokenizer; its tokens are bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        GenerationConfig,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2Tokenizer,
    )

    letters = sorted(ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={letter: number for number, letter in enumerate(letters)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )
    number = tokenizer.get_vocab().__getitem__
    width = sizes.vision_language
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": _sections(width // 2),
            },
            bos_token_id=number("<|endoftext|>"),
            eos_token_id=number("<|im_end|>"),
            pad_token_id=number("<|endoftext|>"),
        ),
        vision_config=dict(
            depth=2,
            hidden_size=width,
            intermediate_size=2 * width,
            num_heads=2,
            out_hidden_size=width,
            fullatt_block_indexes=[1],
        ),
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=number("<|im_end|>"), pad_token_id=number("<|endoftext|>")
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    write_json(path / "preprocessor_config.json", PREPROCESSOR)


def _sections(head: int) -> list[int]:
    """Return the rotary frequencies of time, height and width of an attention head, as 16, 24 and 24 of 128."""
    pairs = head // 2
    time = pairs // 4
    return [time, (pairs - time) // 2, pairs - time - (pairs - time) // 2]


def write_sam2(path: Path, sizes: Sizes) -> None:
    """Write a SAM 2 for video."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    side, width = sizes.segmenter_image, sizes.segmenter
    # An object's pointer is split into vectors of the memory's width, so the network must be wider.
    hidden = 2 * MEMORY
    channels = [width, 2 * width, 4 * width, 8 * width]
    config = Sam2VideoConfig(
        image_size=side,
        vision_config=dict(
            backbone_config=dict(
                model_type="sam2_hiera_det_model",
                hidden_size=width,
                image_size=[side, side],
                blocks_per_stage=[1, 1, 2, 1],
                embed_dim_per_stage=channels,
                num_attention_heads_per_stage=[1, 1, 1, 1],
                window_size_per_stage=[8, 4, 4, 4],
                global_attention_blocks=[3],
            ),
            backbone_channel_list=channels[::-1],
            backbone_feature_sizes=[[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],
            fpn_hidden_size=hidden,
        ),
        prompt_encoder_config=dict(hidden_size=hidden, image_size=side, mask_input_channels=4),
        mask_decoder_config=dict(
            hidden_size=hidden,
            mlp_dim=2 * hidden,
            num_hidden_layers=1,
            num_attention_heads=2,
            iou_head_hidden_dim=hidden,
        ),
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=2 * hidden,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=MEMORY,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=2 * hidden,
        memory_fuser_num_layers=1,
    )
    Sam2VideoModel(config).save_pretrained(path)
