"""Weights that cannot be read are reported in one line by every function that reads weights."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from xdub.config import AudioConfig, CodecConfig
from xdub.errors import UserError
from xdub.files.tensors import read_tensors, write_tensors
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.bundle import bundle_path, load_bundle
from xdub.model.codec import LinearCodec, load_codec


@pytest.fixture()
def cut_short(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_truncated_file_is_reported_by_name(cut_short):
    assert refused(lambda: read_tensors(cut_short)).startswith(
        f"{cut_short}: not a readable safetensors file"
    )


@pytest.mark.parametrize("name", ["editor", "lip"])
def test_a_damaged_file_in_a_model_folder_is_reported_by_name(tmp_path, cut_short, name):
    for file in bundle_path("tiny").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / f"{name}.safetensors").unlink()
    cut_short.rename(tmp_path / f"{name}.safetensors")
    assert f"{name}.safetensors: not a readable" in refused(lambda: load_bundle(tmp_path, generator=False))


def test_a_file_of_other_weights_is_not_a_codec(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "not a linear codec" in refused(lambda: LinearCodec.load(tmp_path / "a.safetensors"))


def test_a_folder_without_the_pretrained_model_is_reported_with_its_setting(tmp_path):
    codec = CodecConfig(kind="wan", channels=16, path=str(tmp_path))
    assert refused(lambda: load_codec(codec)).startswith(f"codec.path={tmp_path}: cannot be loaded")
    audio = AudioConfig(kind="whisper", dim=80, path=str(tmp_path))
    assert refused(lambda: load_audio_encoder(audio)).startswith(f"audio.path={tmp_path}: cannot be loaded")


def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    def full(*args, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("xdub.files.tensors.save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_tensors({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert caught.value.errno == errno.ENOSPC
