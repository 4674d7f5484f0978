"""The check of networks before a run: one line for every kind of wrong file, read from headers alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from xdub.config import PHASES, Recipe, load_recipe
from xdub.errors import UserError
from xdub.headers import check_networks, inspect_networks
from xdub.perception.open_models.shapes import wan
from xdub.perception.open_models.wan_names import diffusers_name

STAGES = (*PHASES, "pairs")
"""Stages of a bootstrap that load networks."""


def model_folder(folder: Path, config: dict[str, Any], stem: str, **shapes: tuple[int, ...]) -> None:
    """Write a model's folder: its configuration, and tensors of zeros under names with underscores for dots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / f"{stem}.safetensors")


def vae(folder: Path, channels: int = 16, space: int | None = 8) -> None:
    config: dict[str, Any] = {"_class_name": "AutoencoderKLWan", "z_dim": channels}
    config |= {} if space is None else {"scale_factor_spatial": space, "scale_factor_temporal": 4}
    shapes = {"post_quant_conv.weight": (channels, channels, 1, 1, 1)}
    model_folder(folder, config, "diffusion_pytorch_model", **shapes)


def whisper(folder: Path, width: int = 1280, bands: int = 128, heard: int = 128) -> None:
    config = {"model_type": "whisper", "d_model": width, "num_mel_bins": bands, "max_source_positions": 1500}
    model_folder(folder, config, "model", **{"encoder.conv1.weight": (width, bands, 3)})
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": heard}))


def syncnet(path: Path) -> None:
    """Write the first layers of a SyncNet v2."""
    state = {f"{tower}.0.weight": torch.zeros(1) for tower in ("netcnnaud", "netfcaud", "netfclip")}
    torch.save(state | {"netcnnlip.0.weight": torch.zeros(4, 3, 5, 7, 7)}, path)


def arcface(path: Path) -> None:
    """Write one tensor of every part of an ArcFace backbone."""
    names = [
        *(f"layer{n}.0.conv1.weight" for n in range(1, 5)),
        "conv1.weight",
        "fc.weight",
        "features.weight",
    ]
    torch.save({name: torch.zeros(2, 2) for name in names}, path)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with all networks of the recipe xdub-1b."""
    vae(tmp_path / "wan2.1-vae")
    whisper(tmp_path / "whisper")
    syncnet(tmp_path / "syncnet_v2.model")
    arcface(tmp_path / "arcface.pth")
    clip = {"model_type": "clip", "vision_config": {"hidden_size": 8, "image_size": 32}}
    model_folder(tmp_path / "clip", clip, "model", **{"visual_projection.weight": (4, 8)})
    return tmp_path


def large(folder: Path, *settings: str) -> Recipe:
    return load_recipe("xdub-1b", [f"weights={folder}", *settings])


def fault(recipe: Recipe, stages: tuple[str, ...] = STAGES) -> str:
    """Return the line with which the recipe is refused."""
    with pytest.raises(UserError) as error:
        check_networks(recipe, stages)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_with_all_networks_passes_within_a_second(weights: Path) -> None:
    begin = time.perf_counter()
    check_networks(large(weights), STAGES)
    check_networks(load_recipe("tiny"), STAGES)
    words = {finding.role: finding.words for finding in inspect_networks(large(weights), STAGES)}
    assert time.perf_counter() - begin < 5
    assert words["codec"] == "wan: 16 channels, a latent covers 4 frames and 8 px"
    assert words["audio"] == "whisper: width 1280, 128 mel bands"
    assert words["sync"] == "syncnet v2: 224 px, 5 frames"
    assert words["identity"].startswith("arcface: 1-1-1-1 blocks")
    assert words["features"] == "clip: width 8, 32 px"


def test_a_codec_of_another_factor_is_named_with_the_settings_that_fit_it(weights: Path) -> None:
    vae(weights / "wan2.1-vae", channels=48, space=16)
    line = fault(large(weights))
    assert "codec.kind=wan has latents of 4 frames and 8 px" in line and "4 frames and 16 px" in line
    assert "--set codec.kind=wan2.2 --set codec.channels=48" in line


def test_a_configuration_of_wan_2_1_without_factors_has_eight_pixels(weights: Path) -> None:
    vae(weights / "wan2.1-vae", space=None)
    check_networks(large(weights), STAGES)


def test_a_codec_of_other_channels_is_named_with_their_number(weights: Path) -> None:
    assert "codec.channels=12, but the codec at" in fault(large(weights, "codec.channels=12"))


def test_a_whisper_of_another_width_is_named_with_both_widths(weights: Path) -> None:
    whisper(weights / "whisper", width=384, bands=80, heard=80)
    line = fault(large(weights))
    assert line.startswith("audio.dim=1280, but the Whisper at ")
    assert line.endswith("has width 384; --set audio.dim=384, or use Whisper large (width 1280)")


def test_the_packaged_whisper_needs_its_own_width(weights: Path) -> None:
    check_networks(large(weights, "audio.path=tiny.en", "audio.dim=384"), STAGES)
    assert "Whisper tiny.en has width 384; --set audio.dim=384" in fault(large(weights, "audio.path=tiny.en"))


def test_a_feature_extractor_of_another_whisper_is_refused(weights: Path) -> None:
    whisper(weights / "whisper", heard=80)
    assert "preprocessor_config.json has 80 mel bands, but its encoder reads 128" in fault(large(weights))


def test_another_network_in_place_of_a_syncnet_is_refused_for_the_lip_phase_alone(weights: Path) -> None:
    arcface(weights / "syncnet_v2.model")
    line = fault(large(weights))
    assert line.startswith("lip: perception.sync=syncnet: ") and "not a SyncNet; train one with" in line
    check_networks(large(weights), ("generator", "pairs"))


def test_a_syncnet_of_features_of_an_audio_encoder_is_refused(weights: Path) -> None:
    metadata = {"network": "tiny-syncnet", "config": json.dumps({"audio_dim": 384})}
    save_file({"w": torch.zeros(1)}, weights / "syncnet.safetensors", metadata=metadata)
    assert "reads 384 features of an audio encoder" in fault(large(weights))


@pytest.mark.parametrize(
    ("missing", "stages", "words"),
    [
        ("wan2.1-vae", ("generator",), "codec.kind=wan needs its weights"),
        ("whisper", ("generator",), "audio.kind=whisper needs its weights"),
        ("syncnet_v2.model", STAGES, "lip: perception.sync=syncnet needs its weights"),
        ("arcface.pth", ("pairs",), "pairs: perception.identity=arcface needs its weights"),
        ("clip", ("texture",), "texture: perception.features=clip needs its weights"),
    ],
)
def test_a_network_that_a_late_stage_loads_is_required_before_the_first(
    weights: Path, missing: str, stages: tuple[str, ...], words: str
) -> None:
    (weights / missing).rename(weights / "elsewhere")
    line = fault(large(weights), stages)
    assert line.startswith(words)
    assert ("`xdub train syncnet`" in line) == (missing == "syncnet_v2.model")


def test_networks_that_no_stage_loads_may_be_missing(weights: Path) -> None:
    for name in ("syncnet_v2.model", "arcface.pth"):
        (weights / name).unlink()
    check_networks(large(weights), ("generator", "editor"))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("codec.path", "/gone/vae"),
        ("audio.path", "openai/whisper/large"),
        ("perception.sync_path", "/gone/syncnet"),
    ],
)
def test_a_path_that_the_recipe_sets_must_exist_even_if_no_stage_loads_it(
    weights: Path, key: str, path: str
) -> None:
    line = fault(large(weights, f"{key}={path}"), ("generator",))
    assert line.startswith(f"{key}={path}: there is no such file or folder")


@pytest.mark.parametrize("setting", ["codec.path=Wan-AI/Wan2.1-VAE", "audio.path=openai/whisper-large-v3"])
def test_a_hub_name_passes_without_a_folder_of_that_name(weights: Path, setting: str) -> None:
    check_networks(large(weights, setting), ("generator",))


def test_a_missing_file_is_named_with_its_folder(weights: Path) -> None:
    (weights / "arcface.pth").unlink()
    line = fault(large(weights), ("pairs",))
    assert line.startswith("pairs: perception.identity=arcface needs its weights") and "arcface.pth" in line
    (weights / "whisper/model.safetensors").unlink()
    assert "whisper: the folder has no model.safetensors" in fault(large(weights))


def test_files_cut_short_and_of_another_kind_are_refused(weights: Path) -> None:
    weight_file = weights / "whisper/model.safetensors"
    weight_file.write_bytes(weight_file.read_bytes()[:-8])
    assert "model.safetensors: is not a whole safetensors file" in fault(large(weights))
    whisper(weights / "whisper")
    (weights / "arcface.pth").write_text("no weights")
    assert "arcface.pth: cannot be read as weights" in fault(large(weights))
    (weights / "clip/config.json").write_text("{")
    line = fault(large(weights), ("texture",))
    # One line for the first fault, and the number of the others.
    assert "arcface.pth" in line and "(1 more: " in line


def test_a_path_that_only_the_cluster_has_passes_and_a_missing_setting_does_not(tmp_path: Path) -> None:
    check_networks(large(Path("/shared/weights")), STAGES, on_this_machine=False)
    with pytest.raises(UserError, match="codec.kind=wan needs its weights"):
        check_networks(load_recipe("xdub-1b"), STAGES, on_this_machine=False)


@pytest.mark.parametrize(
    "content", [torch.zeros(512, 8), torch.zeros(1, 512, 8), {"context": torch.zeros(1, 512, 8)}]
)
def test_a_prompt_that_torch_saved_is_checked_by_its_width(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "null_prompt_emb.pt"
    torch.save(content, path)
    settings = [
        "model.kind=wan",
        "lora.targets=[ffn.0]",
        "model.linear_skip=false",
        f"model.prompt={path}",
    ]
    check_networks(load_recipe("tiny", [*settings, "model.text_dim=8"]), ("generator",))
    with pytest.raises(UserError, match=r"model.text_dim=9, but the prompt at .* has width 8"):
        check_networks(load_recipe("tiny", [*settings, "model.text_dim=9"]), ("generator",))


def test_open_weights_are_checked_before_a_run_starts(tmp_path: Path) -> None:
    torch.save(torch.zeros(512, 8), tmp_path / "prompt.pt")
    settings = [
        "model.kind=wan",
        "lora.targets=[ffn.0]",
        "model.linear_skip=false",
        "model.text_dim=8",
        f"model.prompt={tmp_path / 'prompt.pt'}",
    ]

    def check(*more: str, local: bool = True) -> None:
        check_networks(load_recipe("tiny", [*settings, *more]), ("editor", "lip"), on_this_machine=local)

    check()
    with pytest.raises(UserError, match=r"phases.editor.tune=adapter .* names none; --set model.base=DIR"):
        check("train.tune=adapter")
    with pytest.raises(UserError, match=r"names none; --generator NAME:DIR of .* or --init-from"):
        check("train.tune=adapter", "model.speech=published")
    with pytest.raises(UserError, match="model.base=absent: there is no such file"):
        check("model.base=absent")
    check("model.base=absent", "train.tune=adapter", local=False)
    with pytest.raises(UserError, match=r"holds no .safetensors file"):
        check(f"model.base={tmp_path}")
    base = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, base)
    with pytest.raises(UserError, match="holds another network than a Wan; name a release"):
        check(f"model.base={tmp_path}")
    recipe = load_recipe("tiny", settings)
    shapes = wan(
        recipe.model.hidden_size,
        int(recipe.model.ffn_ratio * recipe.model.hidden_size),
        recipe.codec.channels,
        recipe.model.num_layers,
        text=8,
    )
    # The names of diffusers are valid, too.
    release = {diffusers_name(name): torch.zeros(shape) for name, shape in shapes.items()}
    save_file(release, base)
    for path in (tmp_path, base):
        check(f"model.base={path}", "train.tune=adapter")
    published = (f"model.base={tmp_path}", "model.speech=published")
    with pytest.raises(
        UserError, match=r"is no published editor, .* model.speech=published starts from one; use"
    ):
        check(*published)
    # X-Dub in the layout of diffusers has its speech in a file of its own.
    for width in (9, recipe.audio.dim):
        save_file(
            {"audio_embedding.proj_in.weight": torch.zeros(4, width)}, tmp_path / "additions.safetensors"
        )
        with pytest.raises(UserError, match="is a published editor, .* model.speech=frames has audio layers"):
            check(f"model.base={tmp_path}")
        if width == 9:
            with pytest.raises(
                UserError, match=rf"features of width 9, but audio.dim={recipe.audio.dim}; use"
            ):
                check(*published)
    check(*published)
    for key, value, fix in (("num_heads", 2, "--set model.num_heads=2"), ("eps", 1e-5, "only releases with")):
        (tmp_path / "config.json").write_text(json.dumps({key: value}))
        with pytest.raises(UserError, match=rf"has {key}={value}, but the recipe's network has .*; {fix}"):
            check(f"model.base={base}")
    (tmp_path / "config.json").unlink()
    save_file(release, tmp_path / "second.safetensors")
    with pytest.raises(
        UserError, match=r"several networks \(model.safetensors, second.safetensors\); name one"
    ):
        check(f"model.base={tmp_path}")
    torch.save(release, tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"model.pth: is no .safetensors file, and open weights are read from"
    ):
        check(f"model.base={tmp_path / 'model.pth'}")
    with pytest.raises(UserError, match=r"recipe's network: blocks.\d.* is left over; use the recipe of"):
        check(f"model.base={base}", "model.num_layers=1")
    release.popitem()
    save_file(release, base)
    with pytest.raises(UserError, match=r"recipe's network: \S+ \[.*\] is missing"):
        check(f"model.base={base}")
    base.write_bytes(base.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model.safetensors: not a readable safetensors file .*; copy"):
        check(f"model.base={base}")
