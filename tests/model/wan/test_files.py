"""Folders of Wans: the layouts of the releases, strict names and shapes, and nothing lost on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from xdub.errors import UserError
from xdub.files.tensors import signature
from xdub.files.weight_folder import WeightFolder
from xdub.geometry import CodecGeometry
from xdub.model import load_backbone, save_backbone
from xdub.model.testing import small_wan
from xdub.model.wan.config import WanConfig
from xdub.model.wan.config_files import read_wan_config
from xdub.model.wan.network import WanDiT
from xdub.perception.open_models.table import OPEN_MODELS
from xdub.perception.open_models.wan_names import diffusers_name

EDITOR = dict(speech="published", round_timesteps=True)
LARGEST = "aafcfd9672c3a2456dc46e1cb6e52c70"
"""Signature of Wan 2.1 T2V-14B, which is no entry of the registry."""
RELEASES = {
    "wan2.1-t2v-1.3b": ((1536, 8960, 30, 16), {}),
    "wan2.2-ti2v-5b": ((3072, 14336, 30, 48), {}),
    "xdub-public": ((3072, 14336, 30, 48), {**EDITOR, "audio_dim": 2048}),
    "tbdub-teacher": ((3072, 14336, 30, 48), {**EDITOR, "audio_dim": 4096}),
    "wan2.1-t2v-14b": ((5120, 13824, 40, 16), {}),
}
"""Release -> its width, inner width, blocks and channels, and what it has beside a plain Wan."""


def wan(space=8, channels=4, **changes) -> WanDiT:
    torch.manual_seed(0)
    return WanDiT(small_wan(CodecGeometry(channels, time=4, space=space), **changes)).eval()


def editor() -> WanDiT:
    return wan(16, 48, speech="published", speech_width=64, audio_dim=14, round_timesteps=True)


def generator() -> WanDiT:
    return wan(masked_input=True, audio_dim=10)


def assert_equal(first: torch.nn.Module, second: torch.nn.Module) -> None:
    one, two = first.state_dict(), second.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one)


@pytest.mark.parametrize("name", RELEASES)
def test_names_and_shapes_are_those_of_the_releases_and_lead_to_their_configuration(name, tmp_path):
    (hidden, ffn, layers, channels), changes = RELEASES[name]
    config = WanConfig(
        kind="wan",
        hidden_size=hidden,
        num_heads=hidden // 128,
        num_layers=layers,
        ffn_dim=ffn,
        text_dim=4096,
        order="reference_first",
        geometry=CodecGeometry(channels, time=4, space=16 if channels == 48 else 8),
        **changes,
    )
    with torch.device("meta"):
        model = WanDiT(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    entry = next((model for model in OPEN_MODELS if model.role == name), None)
    assert signature(shapes) == (LARGEST if entry is None else entry.signature)
    assert entry is None or entry.shapes is None or shapes == entry.shapes()
    assert read_wan_config(WeightFolder(tmp_path, ()), shapes) == config


@pytest.mark.parametrize("layout", ["original", "diffusers", "ours"])
@pytest.mark.parametrize(
    "build",
    [
        wan,
        editor,
        lambda: wan(masked_input=True, audio_dim=10),
        # Neither configuration is that of a release, so the shapes alone lead to another one.
        lambda: wan(audio_dim=10, round_timesteps=True, order="target_first"),
        lambda: wan(space=16, cross_attn_norm=False, eps=1e-5),
    ],
)
def test_a_folder_gives_the_same_network_back(tmp_path, layout, build):
    model = build().to(torch.bfloat16)
    save_backbone(model, tmp_path / "folder", layout=layout)
    loaded = load_backbone(tmp_path / "folder")
    assert_equal(model, loaded)
    assert loaded.cfg == model.cfg


def test_diffusers_loads_a_saved_folder_and_its_own_folder_is_loaded(tmp_path):
    model = wan()
    save_backbone(model, tmp_path / "ours", layout="diffusers")
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "pipeline" / "transformer", max_shard_size="50KB")
    assert len(list((tmp_path / "pipeline" / "transformer").glob("*.safetensors"))) > 1
    loaded = load_backbone(tmp_path / "pipeline")
    assert_equal(model, loaded)
    z, text, t = torch.randn(1, 4, 3, 4, 6), torch.randn(1, 5, 12), torch.tensor([0.4])
    torch.testing.assert_close(
        loaded.velocity_from_text(z, t, text), theirs(z, 1000 * t, text).sample, atol=1e-5, rtol=1e-5
    )


def test_a_file_for_comfyui_and_a_release_of_one_file_are_recognised(tmp_path):
    model = wan()
    prefixed = {f"model.diffusion_model.{name}": value for name, value in model.state_dict().items()}
    save_file(prefixed, tmp_path / "comfy.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 2}))
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "Wan2.1_VAE.safetensors")
    assert_equal(model, load_backbone(tmp_path))
    assert_equal(model, load_backbone(tmp_path / "comfy.safetensors"))


def test_two_networks_in_a_folder_are_not_chosen_from(tmp_path):
    for name in ("tbdub_teacher", "tbdub_student"):
        save_file(editor().state_dict(), tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"tbdub_student.safetensors, tbdub_teacher.safetensors.*name one"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_written_files_can_be_read_by_those_whom_the_umask_allows(tmp_path, layout):
    before = os.umask(0o027)
    try:
        save_backbone(editor(), tmp_path / "folder", layout=layout)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "folder").iterdir()} == {0o640}


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state, name: state.pop(name("blocks.1.norm3.weight")),
            r"blocks\.1\.norm3\.weight is missing",
        ),
        (
            lambda state, name: state.update({"img_emb.proj.0.weight": torch.zeros(2)}),
            r"img_emb\.proj\.0\.weight is left over",
        ),
        (
            lambda state, name: state.update({name("blocks.0.ffn.2.bias"): torch.zeros(47)}),
            r"blocks\.0\.ffn\.2\.bias has shape \(47,\), the network has \(48,\)",
        ),
        (
            lambda state, name: state.update(
                {name("blocks.0.ffn.2.bias"): torch.zeros(48, dtype=torch.int8)}
            ),
            r"blocks\.0\.ffn\.2\.bias has whole numbers \(torch.int8\); name weights of fp32 or bf16",
        ),
        (
            lambda state, name: state[name("blocks.0.ffn.2.bias")].fill_(float("nan")),
            r"blocks\.0\.ffn\.2\.bias has values that are not finite; download the weights or train",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, layout, change, message):
    save_backbone(wan(), tmp_path / "folder", layout=layout)
    file = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    change(state, diffusers_name if layout == "diffusers" else str)
    save_file(state, file)
    with pytest.raises(UserError, match=message):
        load_backbone(tmp_path / "folder")


@pytest.mark.parametrize(
    ("changes", "extra", "message"),
    [
        ({"model_type": "i2v"}, (), "model_type=i2v in config.json is no network"),
        ({"_class_name": "WanVACETransformer3DModel"}, (), "_class_name=WanVACETransformer3DModel"),
        ({"image_dim": 32}, ("condition_embedder.image_embedder.ff.net.0.proj.weight",), "image_dim=32"),
        ({"added_kv_proj_dim": 48}, ("blocks.0.attn2.add_k_proj.weight",), "added_kv_proj_dim=48"),
        ({"in_dim": 36}, (), "in_dim=36 with out_dim=4"),
        ({"qk_norm": "layer_norm"}, (), "qk_norm=layer_norm"),
        ({"patch_size": [2, 2, 2]}, (), r"patch_size=\[2, 2, 2\]"),
        ({"num_layers": 3}, (), r"blocks\.2\.\S+ is missing"),
        ({"ffn_dim": 61}, (), r"blocks\.0\.ffn\.0\.bias has shape \(60,\), the network has \(61,\)"),
    ],
)
def test_a_configuration_of_another_network_is_refused_by_key_and_value(tmp_path, changes, extra, message):
    save_backbone(wan(), tmp_path, layout="original")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    save_file(
        wan().state_dict() | dict.fromkeys(extra, torch.zeros(2)),
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(UserError, match=message):
        load_backbone(tmp_path)


def test_a_copy_of_a_plain_wan_may_state_a_picture_width_without_its_tensors(tmp_path):
    save_backbone(wan(), tmp_path, layout="diffusers")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_dim": 32, "added_kv_proj_dim": 48}))
    assert_equal(wan(), load_backbone(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]"])
@pytest.mark.parametrize("layout", ["original", "ours"])
def test_a_damaged_configuration_is_named_in_every_layout(tmp_path, layout, text):
    save_backbone(wan(), tmp_path, layout=layout)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: .*; download it again"):
        load_backbone(tmp_path)


def test_folders_without_a_backbone_get_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        load_backbone(tmp_path / "absent")
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match="holds no backbone"):
        load_backbone(tmp_path)
    save_backbone(wan(), tmp_path / "folder")
    file: Path = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_backbone(tmp_path / "folder")


def test_an_index_cannot_name_files_elsewhere(tmp_path):
    (tmp_path / "other").mkdir()
    save_file(wan().state_dict(), tmp_path / "other" / "a.safetensors")
    index = {"weight_map": {"patch_embedding.weight": "other/a.safetensors"}}
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is missing"):
        load_backbone(tmp_path)
