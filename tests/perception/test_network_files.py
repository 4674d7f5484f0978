"""Files and folders of third-party networks that are damaged, incomplete or of another network: one clear line each."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from xdub.config import load_recipe
from xdub.errors import UserError
from xdub.files.tensors import write_tensors
from xdub.headers import check_networks
from xdub.miniature.networks import write_arcface, write_clip, write_syncnet, write_whisper
from xdub.miniature.sizes import Sizes
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.ctranslate2_file import read_model_bin
from xdub.perception.features import load_features
from xdub.perception.identity.arcface import ArcFaceIdentity
from xdub.perception.syncnet.load import load_sync_file
from xdub.perception.syncnet.own import OwnSyncNet, OwnSyncNetConfig


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """Folder with a whole network of each kind."""
    folder = tmp_path_factory.mktemp("networks")
    for name, write in {
        "clip": write_clip,
        "whisper": write_whisper,
        "arcface.pth": write_arcface,
        "syncnet_v2.model": write_syncnet,
    }.items():
        write(folder / name, Sizes())
    return folder


@pytest.fixture
def weights(originals: Path, tmp_path: Path) -> Path:
    """Copy of the networks that a test may damage."""
    return shutil.copytree(originals, tmp_path / "weights")


def _change(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def _load(weights: Path, role: str):
    recipe = load_recipe("mini", [f"weights={weights}"])
    return load_features(recipe.perception) if role == "clip" else load_audio_encoder(recipe.audio)


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("clip", "vision_model.encoder.layers.0.mlp.fc1.weight"),
        ("whisper", "encoder.layers.0.fc1.weight"),
    ],
)
def test_a_folder_that_lacks_a_weight_is_rejected_instead_of_filled_with_random_numbers(weights, role, name):
    _change(weights / role, lambda state: {key: state[key] for key in state if key != name})
    with pytest.raises(UserError, match=f"lack 1 of the weights of .*{name}"):
        _load(weights, role)


def test_weights_that_are_not_used_may_be_missing(weights):
    _change(weights / "clip", lambda state: {key: state[key] for key in state if "text_" not in key})
    _change(weights / "whisper", lambda state: {key: state[key] for key in state if "decoder" not in key})
    _load(weights, "clip")
    _load(weights, "whisper")


@pytest.mark.parametrize("role", ["clip", "whisper"])
def test_weights_that_are_stored_in_fp16_compute_in_fp32(weights, role):
    _change(weights / role, lambda state: {key: value.half() for key, value in state.items()})
    config = json.loads((weights / role / "config.json").read_text())
    (weights / role / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    network = _load(weights, role)
    module = network if isinstance(network, torch.nn.Module) else network.encoder
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("role", ["clip", "whisper"])
def test_nan_weights_of_a_folder_are_rejected(weights, role):
    _change(weights / role, lambda state: {key: state[key] * float("nan") for key in state})
    with pytest.raises(UserError, match="not finite"):
        _load(weights, role)


@pytest.mark.parametrize("role", ["clip", "whisper"])
@pytest.mark.parametrize("damage", ["empty", "cut", "pickle", "config"])
def test_a_damaged_folder_is_one_line(weights, role, damage):
    folder = weights / role
    data = (folder / "model.safetensors").read_bytes()
    if damage == "pickle":
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(os.urandom(1000))
    elif damage == "config":
        (folder / "config.json").write_text("[1]")
    else:
        (folder / "model.safetensors").write_bytes(data[:-1] if damage == "cut" else b"")
    with pytest.raises(UserError, match="cannot be loaded"):
        _load(weights, role)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", '{"model_type": "whisper", "d_model": null}'),
        ("config.json", '{"model_type": "whisper", "d_model": "32x"}'),
        ("model.safetensors.index.json", '{"weight_map": null}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
    ],
)
def test_the_check_of_headers_survives_values_of_any_type(weights, file, text):
    (weights / "whisper" / file).write_text(text)
    with pytest.raises(UserError, match="wrong kind|does not list the files"):
        check_networks(
            load_recipe("mini", [f"weights={weights}", "codec.kind=linear", "codec.channels=48"]),
            ("generator",),
        )


LOADERS = {"arcface.pth": ArcFaceIdentity.load, "syncnet_v2.model": load_sync_file}


class Payload:
    """Object that runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


CONTENTS = {
    "a list": lambda state: list(state.values()),
    "one tensor": lambda state: next(iter(state.values())),
    "a number as a name": lambda state: state | {5: torch.zeros(1)},
    "a text as a weight": lambda state: state | {next(iter(state)): "x"},
    "a scalar weight": lambda state: {key: torch.tensor(1.0) for key in state},
    "complex weights": lambda state: {key: value.to(torch.complex64) for key, value in state.items()},
    "nan weights": lambda state: {key: value * float("nan") for key, value in state.items()},
    "a view of terabytes": lambda state: state | {next(iter(state)): torch.zeros(1).expand(10**12)},
    "a payload": lambda state: state | {"x": Payload()},
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("content", CONTENTS)
def test_a_state_dict_of_anything_else_is_one_line(weights, name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = weights / name
    torch.save(CONTENTS[content](dict(torch.load(path))), path)
    with pytest.raises(UserError, match=str(path)) as caught:
        LOADERS[name](path)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_a_file_that_was_cut_short_is_one_line(weights, name):
    path = weights / name
    data = path.read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="cannot be read as weights"):
            LOADERS[name](path)


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        "[]",
        '{"size": 0}',
        '{"size": "x"}',
        '{"unknown": 1}',
        '{"size": 64, "width": 1000000000}',
        '{"size": 32, "width": 8}',
    ],
)
def test_a_syncnet_with_a_damaged_header_is_one_line_without_a_large_allocation(tmp_path, config):
    network = OwnSyncNet(OwnSyncNetConfig(size=16, width=8, embed_dim=8))
    path = tmp_path / "syncnet.safetensors"
    metadata = {"network": network.name} | ({} if config is None else {"config": config})
    write_tensors(network.state_dict(), path, metadata)
    with pytest.raises(UserError, match="header"):
        load_sync_file(path)


def test_a_converted_model_with_an_impossible_empty_array_is_one_line(tmp_path):
    sizes = struct.pack("<8I", *[2**32 - 1] * 7, 0)
    variable = struct.pack("<H", 2) + b"x\0" + struct.pack("<B", 8) + sizes + struct.pack("<BI", 0, 0)
    path = tmp_path / "model.bin"
    path.write_bytes(
        struct.pack("<I", 6) + struct.pack("<H", 2) + b"m\0" + struct.pack("<II", 1, 1) + variable
    )
    with pytest.raises(UserError, match="not a readable CTranslate2 model"):
        read_model_bin(path)
