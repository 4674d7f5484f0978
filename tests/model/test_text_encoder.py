"""A prompt is embedded as Wan does it: cleaned, cut at 512 tokens, with zero rows behind the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.config import load_recipe, prompt_path
from xdub.errors import UserError
from xdub.headers import check_networks, inspect_networks
from xdub.miniature.networks import write_embedded_prompt, write_umt5
from xdub.miniature.sizes import Sizes
from xdub.model.prompt import read_prompt
from xdub.model.text_encoder import TO_TRANSFORMERS, clean, embed_prompt, transformers_names

WAN = ("model.kind=wan", "lora.targets=[ffn.0]", "model.linear_skip=false", "model.order=reference_first")
TEXT = "  a person\n\t talking &amp;amp; smiling  "


@pytest.fixture(scope="module")
def umt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "umt5"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_umt5(folder, Sizes())
    return folder


def original_names(folder: Path) -> dict[str, torch.Tensor]:
    """Return the encoder's tensors under Wan's names, found by trying all of them."""
    state = load_file(folder / "model.safetensors")
    inside = ["norm1", "norm2", *(f"attn.{part}" for part in "qkvo"), "pos_embedding.embedding"]
    inside += ["ffn.gate.0", "ffn.fc1", "ffn.fc2"]
    names = ["token_embedding.weight", "norm.weight", *(f"blocks.0.{name}.weight" for name in inside)]
    assert len(names) == len(TO_TRANSFORMERS) + 3
    return {name: state[next(iter(transformers_names({name: torch.zeros(1)})))] for name in names}


def test_the_rows_equal_those_of_the_padded_and_masked_encoder(umt5: Path) -> None:
    from transformers import AutoTokenizer, UMT5EncoderModel

    prompt = embed_prompt(umt5, TEXT, rows=64)
    ids = AutoTokenizer.from_pretrained(umt5)(
        "a person talking & smiling", padding="max_length", max_length=64, return_tensors="pt"
    )
    with torch.no_grad():
        expected = UMT5EncoderModel.from_pretrained(umt5).eval()(**ids).last_hidden_state[0]
    length = int(ids["attention_mask"].sum())
    assert prompt.rows.shape == (length, 32) and prompt.padding == 64 - length
    torch.testing.assert_close(prompt.rows, expected[:length])
    assert clean(TEXT) == "a person talking & smiling" and prompt.text == TEXT


def test_the_null_prompt_is_one_row_and_a_long_text_is_cut(umt5: Path) -> None:
    null = embed_prompt(umt5, "")
    assert null.rows.shape == (1, 32) and null.padding == 511 and bool(null.rows.any())
    long = embed_prompt(umt5, "word " * 400)
    assert long.rows.shape == (512, 32) and long.padding == 0


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_the_original_layout_gives_the_same_rows(umt5: Path, tmp_path: Path, ending: str) -> None:
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "umt5-xxl").symlink_to(umt5)
    state = original_names(umt5)
    file = tmp_path / f"models_t5_umt5-xxl-enc-bf16.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    torch.testing.assert_close(embed_prompt(tmp_path, TEXT).rows, embed_prompt(umt5, TEXT).rows)
    del state["blocks.0.ffn.fc1.weight"]
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    with pytest.raises(UserError, match="wi_1.weight does not fit"):
        embed_prompt(tmp_path, TEXT)


def test_the_command_writes_the_file_that_a_recipe_of_kind_wan_finds(umt5: Path, tmp_path, capsys) -> None:
    out = tmp_path / "prompt.safetensors"
    assert run_app(app, ["weights", "prompt", "--umt5", str(umt5), "--out", str(out)]) == 0
    assert "1 rows of width 32, 511 zero rows" in capsys.readouterr().out
    recipe = load_recipe("tiny", [*WAN, "model.text_dim=32", f"weights={tmp_path}"])
    assert prompt_path(recipe) == str(out) and read_prompt(out).text == ""
    check_networks(recipe, ("editor",))
    words = [entry.words for entry in inspect_networks(recipe, ("editor",)) if entry.role == "prompt"]
    assert words == ["prompt: 1 rows of width 32, ''"]
    assert run_app(app, ["weights", "prompt", "--umt5", str(tmp_path / "no"), "--out", str(out)]) == 2
    assert "`xdub weights fetch umt5` downloads it" in capsys.readouterr().err


def test_a_missing_or_wrong_prompt_is_found_before_anything_starts(tmp_path: Path) -> None:
    settings = [*WAN, "model.text_dim=16"]
    with pytest.raises(UserError, match="needs an embedded prompt; write it with `xdub weights prompt"):
        check_networks(load_recipe("tiny", settings), ("editor",))
    write_embedded_prompt(tmp_path / "other.safetensors", Sizes(text=8))
    recipe = load_recipe("tiny", [*settings, f"model.prompt={tmp_path / 'other.safetensors'}"])
    with pytest.raises(
        UserError, match="text_dim=16, but the prompt at .* has width 8; --set model.text_dim=8"
    ):
        check_networks(recipe, ("editor",))
    # Another machine may have the file.
    absent = load_recipe("tiny", [*settings, "model.prompt=/cluster/prompt.safetensors"])
    check_networks(absent, ("editor",), on_this_machine=False)
    # The paper's network reads no file.
    check_networks(load_recipe("tiny"), ("editor",))
