"""An embedded prompt survives its file, and an embedding that torch saved is split into rows and padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdub.errors import UserError
from xdub.model.prompt import Prompt, from_padded, read_prompt, write_prompt


def test_a_prompt_is_read_as_it_was_written(tmp_path: Path) -> None:
    prompt = Prompt(rows=torch.randn(3, 8).bfloat16(), padding=509, text="a person talking")
    write_prompt(prompt, tmp_path / "prompt.safetensors")
    again = read_prompt(tmp_path / "prompt.safetensors")
    assert torch.equal(again.rows, prompt.rows) and again.rows.dtype == torch.bfloat16
    assert (again.padding, again.text, again.width) == (509, "a person talking", 8)
    assert again.padded().shape == (512, 8) and not again.padded()[3:].any()


def test_the_same_prompt_gives_the_same_bytes(tmp_path: Path) -> None:
    prompt = Prompt(rows=torch.ones(1, 4), padding=511, text='ein "Prompt" \u00fc')
    for number in range(6):
        write_prompt(prompt, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert read_prompt(tmp_path / "0.safetensors").text == prompt.text


@pytest.mark.parametrize("content", ["tensor", "batch", "mapping"])
def test_trailing_zero_rows_of_a_saved_embedding_become_padding(tmp_path: Path, content: str) -> None:
    embedding = torch.zeros(512, 8)
    embedding[0], embedding[2] = 1.0, -2.0
    value = {"tensor": embedding, "batch": embedding[None], "mapping": {"emb": embedding[None]}}[content]
    torch.save(value, tmp_path / "null_prompt_emb.pt")
    prompt = read_prompt(tmp_path / "null_prompt_emb.pt")
    # The zero row between real rows is no padding.
    assert prompt.rows.shape == (3, 8) and prompt.padding == 509
    assert torch.equal(prompt.padded(), embedding)


def test_an_embedding_of_zeros_keeps_one_row() -> None:
    prompt = from_padded(torch.zeros(4, 2))
    assert prompt.rows.shape == (1, 2) and prompt.padding == 3


class Bomb:
    def __reduce__(self):
        return (print, ("code of the file was run",))


def test_foreign_files_are_errors_of_one_line_and_run_no_code(tmp_path: Path, capfd) -> None:
    torch.save(Bomb(), tmp_path / "bomb.pt")
    torch.save(torch.zeros(2, 3, 4), tmp_path / "shape.pt")
    torch.save(torch.full((2, 4), torch.nan), tmp_path / "nan.pt")
    torch.save({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, tmp_path / "two.pt")
    write_prompt(Prompt(rows=torch.zeros(2, 2), padding=1), tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:40])
    for name in ("bomb.pt", "shape.pt", "nan.pt", "two.pt", "cut.safetensors", "absent.safetensors"):
        with pytest.raises(UserError, match=name) as caught:
            read_prompt(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "code of the file" not in capfd.readouterr().out
