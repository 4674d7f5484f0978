"""Embedding of one prompt with UMT5, Wan's text encoder; it is the only code that loads a text encoder."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xdub.errors import UserError, loading_pretrained
from xdub.files.tensors import read_tensors
from xdub.model.prompt import Prompt
from xdub.perception.network_files import check_finite, read_state_dict

ROWS = 512
"""Rows of a prompt of Wan; a longer prompt is cut."""
ORIGINAL = "models_t5_umt5-xxl-enc-bf16"
"""Beginning of the name of the file of weights in Wan's original layout, ``.pth`` or ``.safetensors``."""
TOKENIZERS = ("", "tokenizer", "google/umt5-xxl", "umt5-xxl")
"""Folders of the tokenizer below the model's folder, in the releases of transformers, diffusers, Wan and X-Dub."""
TO_TRANSFORMERS = (
    (r"token_embedding\.weight", "shared.weight"),
    (r"norm\.weight", "encoder.final_layer_norm.weight"),
    (r"blocks\.(\d+)\.norm1\.weight", r"encoder.block.\1.layer.0.layer_norm.weight"),
    (r"blocks\.(\d+)\.norm2\.weight", r"encoder.block.\1.layer.1.layer_norm.weight"),
    (r"blocks\.(\d+)\.attn\.([qkvo])\.weight", r"encoder.block.\1.layer.0.SelfAttention.\2.weight"),
    (
        r"blocks\.(\d+)\.pos_embedding\.embedding\.weight",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.weight",
    ),
    (r"blocks\.(\d+)\.ffn\.gate\.0\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_0.weight"),
    (r"blocks\.(\d+)\.ffn\.fc1\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_1.weight"),
    (r"blocks\.(\d+)\.ffn\.fc2\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wo.weight"),
)
"""(original name, name in transformers' UMT5EncoderModel), as patterns of whole names."""


def embed_prompt(folder: str | Path, text: str, *, rows: int = ROWS) -> Prompt:
    """Return the embedding of a text by the UMT5 in a folder, in the number format of its weights.

    Wan masks the padding in the encoder and sets its rows to zero afterwards, so only the real tokens are encoded. The
    text is cleaned as Wan's is: HTML entities are resolved and white space is collapsed.

    Args:
        folder: a transformers folder with tokenizer, a pipeline's folder with text_encoder/ and tokenizer/, or a
            release of Wan or X-Dub.
        rows: rows of the padded prompt.

    Raises:
        UserError: the folder holds no UMT5 or no tokenizer.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"--umt5 {folder}: there is no such folder; `xdub weights fetch umt5` downloads it (11.4 GB)"
        )
    ids = _tokenizer(folder)(clean(text), truncation=True, max_length=rows)["input_ids"]
    if not ids:
        raise UserError(f"--umt5 {folder}: its tokenizer adds no end token, so it is not that of UMT5")
    model = _encoder(folder)
    with torch.inference_mode():
        embedded = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    check_finite(folder, [("the embedding", embedded)])
    return Prompt(rows=embedded.clone(), padding=rows - len(ids), text=text)


def clean(text: str) -> str:
    """Return a text without HTML entities and with single spaces."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of Wan's original layout under the names of transformers' UMT5EncoderModel.

    Raise UserError with the first name of another layout.
    """
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in TO_TRANSFORMERS:
            if re.fullmatch(pattern, name):
                renamed[re.sub(pattern, replacement, name)] = value
                break
        else:
            raise UserError(f"{name} is no tensor of Wan's text encoder; give the folder of a UMT5")
    return renamed


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    folders = [folder / name for name in TOKENIZERS] + [folder.parent / "tokenizer"]
    path = next((path for path in folders if (path / "tokenizer.json").is_file()), None)
    if path is None:
        raise UserError(
            f"--umt5 {folder}: has no tokenizer.json; `xdub weights fetch umt5` downloads it, too"
        )
    with loading_pretrained("--umt5", path):
        return AutoTokenizer.from_pretrained(path)


def _encoder(folder: Path) -> nn.Module:
    """Return the encoder of a folder in eval mode and the number format of its file."""
    from transformers import UMT5EncoderModel

    for file in (folder / f"{ORIGINAL}.safetensors", folder / f"{ORIGINAL}.pth"):
        if file.is_file():
            return _original_encoder(file)
    path = folder if (folder / "config.json").is_file() else folder / "text_encoder"
    kind: Any = UMT5EncoderModel
    with loading_pretrained("--umt5", path):
        model, info = kind.from_pretrained(path, dtype="auto", output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"--umt5 {path}: the files lack {missing[0]}; download the text encoder again")
    return model.eval()


def _original_encoder(file: Path) -> nn.Module:
    """Return the encoder of a file in Wan's original layout, whose sizes are those of its tensors."""
    from transformers import UMT5Config, UMT5EncoderModel

    state = read_tensors(file) if file.suffix == ".safetensors" else read_state_dict(file, "a UMT5 encoder")
    state = transformers_names(state)
    try:
        vocabulary, width = state["shared.weight"].shape
        buckets, heads = state["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].shape
        inner = state["encoder.block.0.layer.1.DenseReluDense.wo.weight"].shape[1]
        total = state["encoder.block.0.layer.0.SelfAttention.q.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"{file}: lacks {error}, so it is not a UMT5 encoder; download it again") from error
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=total // heads,
        d_ff=inner,
        num_layers=sum(name.endswith("layer.0.layer_norm.weight") for name in state),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    # The embedding has a second name for the same tensor.
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    own = model.state_dict()
    if wrong := sorted(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]:
        raise UserError(f"{file}: {wrong[0]} does not fit a UMT5 encoder; download it again")
    model.load_state_dict(state, assign=True)
    return model.eval()
