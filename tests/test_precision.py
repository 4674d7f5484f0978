"""Pairs and dubs compute in the recipe's precision, and every network is on the device that was opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xdub.config import Recipe, recipe_from_dict
from xdub.data.latents import encode_batch
from xdub.data.samples import collate
from xdub.data.shards import ShardWriter
from xdub.data.sound import window_samples
from xdub.data.testing import FrameIndexAudio, PatchCodec, make_clip
from xdub.dub.testing import small_recipe, write_random_bundle
from xdub.dub.window import Window
from xdub.dub.window_sampler import WindowSampler
from xdub.files.storage import locate
from xdub.model.bundle import load_bundle
from xdub.pairs.worker import PairWorker
from xdub.precision import frozen, network_in, one_thread, open_device

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Wan VAE and a Whisper of toy size in their own file formats."""
    from diffusers import AutoencoderKLWan
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained(folder / "vae")
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    return folder


@pytest.fixture(scope="module")
def model(networks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """Model folder in bf16 with Wan's VAE and Whisper, and its recipe."""
    raw = small_recipe("train.precision=bf16").to_dict()
    raw["codec"] |= {"kind": "wan", "path": str(networks / "vae")}
    raw["audio"] |= {"kind": "whisper", "path": str(networks / "whisper"), "dim": 16}
    folder = tmp_path_factory.mktemp("model")
    return folder, random_model(folder, recipe_from_dict(raw))


def random_model(folder: Path, recipe: Recipe) -> Recipe:
    """Write a random model folder whose recipe keeps its own codec."""
    path = recipe.codec.path
    raw = write_random_bundle(folder, recipe).to_dict()
    raw["codec"]["path"] = path
    import yaml

    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
    return recipe_from_dict(raw)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    with ShardWriter(folder) as writer:
        writer.add(make_clip(0, num_frames=25))
    return folder


@contextmanager
def recorded(sampler: WindowSampler) -> Iterator[dict[str, set[torch.dtype]]]:
    """Record the types of what flows through a sampler: in blocks, in the codec, and in the solver's state."""
    types: dict[str, set[torch.dtype]] = {"blocks": set(), "codec": set(), "state": set(), "velocity": set()}

    def watch(name: str):
        def hook(_module: nn.Module, _inputs: object, out: object) -> None:
            if isinstance(out, Tensor):
                types[name].add(out.dtype)

        return hook

    velocity = sampler._velocity

    def watched(z_t: Tensor, t: Tensor, conditions: object) -> Tensor:
        types["state"] |= {z_t.dtype, t.dtype}
        out = velocity(z_t, t, conditions)
        types["velocity"].add(out.dtype)
        return out

    parts = {"blocks": sampler.backbone.blocks, "codec": getattr(sampler.codec, "vae", nn.Module())}
    hooks = [
        layer.register_forward_hook(watch(name))
        for name, part in parts.items()
        for layer in part.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Conv3d))
    ]
    sampler._velocity = watched
    try:
        yield types
    finally:
        sampler._velocity = velocity
        for hook in hooks:
            hook.remove()


def window(recipe: Recipe, frames: int, *, masked: bool) -> Window:
    size = recipe.video.size
    hidden = np.zeros((frames, size, size), bool)
    hidden[:, size // 2 :] = True
    return Window(
        frames=np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), np.uint8),
        sound=np.zeros(window_samples(frames), np.float32),
        noise=("precision", 0),
        hidden=hidden if masked else None,
    )


def test_pair_making_computes_in_bf16_and_keeps_the_samplers_state_in_fp32(model, clips: Path):
    folder, recipe = model
    sampler = PairWorker(recipe, folder, clips, locate(clips), seed=0, device="cpu").maker.sampler
    assert {buffer.dtype for buffer in sampler.backbone.buffers()} == {FP32}
    with recorded(sampler) as types:
        (frames,) = sampler([window(recipe, recipe.pairs.segment_frames, masked=True)])
    assert types == {"blocks": {BF16}, "codec": {BF16}, "state": {FP32}, "velocity": {FP32}}
    assert frames.dtype == np.float32 and np.isfinite(frames).all()


@pytest.mark.parametrize("use", ["editor", "generator"])
def test_a_dub_computes_in_bf16_and_keeps_the_samplers_state_in_fp32(model, use: str):
    bundle = load_bundle(model[0])
    backbone = bundle.editor if use == "editor" else bundle.generator
    assert backbone is not None
    sampler = WindowSampler(backbone, bundle.codec, bundle.audio_encoder, num_steps=2)
    with recorded(sampler) as types:
        (frames,) = sampler([window(bundle.recipe, bundle.recipe.dub.window, masked=use == "generator")])
    assert types == {"blocks": {BF16}, "codec": {BF16}, "state": {FP32}, "velocity": {FP32}}
    assert frames.dtype == np.float32 and np.isfinite(frames).all()


def test_the_shipped_model_is_fp32():
    bundle = load_bundle()
    assert {p.dtype for p in bundle.editor.parameters()} == {FP32}
    assert bundle.generator is not None and {p.dtype for p in bundle.generator.parameters()} == {FP32}


def test_every_network_of_a_pair_worker_is_on_the_workers_device(model, clips: Path):
    """The meta device stands for a GPU: networks move there, and nothing else does."""
    folder, recipe = model
    worker = PairWorker(recipe, folder, clips, locate(clips), seed=0, device="meta")
    networks = {
        "generator": worker.maker.sampler.backbone,
        "codec": worker.maker.sampler.codec,
        "audio encoder": worker.maker.sampler.audio_encoder.encoder,
        "identity": worker.judges.embed.__self__,
        "mouth readout": worker.judges.read_mouth._readout,
    }
    devices = {name: {p.device.type for p in network.parameters()} for name, network in networks.items()}
    assert devices == dict.fromkeys(networks, {"meta"})
    assert {p.dtype for name in ("identity", "mouth readout") for p in networks[name].parameters()} == {FP32}


def test_every_network_of_a_model_folder_is_on_the_chosen_device(model):
    bundle = load_bundle(model[0], "meta")
    networks = (bundle.editor, bundle.generator, bundle.codec, bundle.audio_encoder.encoder)
    assert {p.device.type for network in networks for p in network.parameters()} == {"meta"}


def test_only_an_encoder_that_promises_equal_bits_runs_on_one_thread(monkeypatch):
    counts: list[int] = []

    class Counting(PatchCodec):
        machine_independent = False

        def encode(self, video: Tensor) -> Tensor:
            counts.append(torch.get_num_threads())
            return super().encode(video)

    class Promising(Counting):
        machine_independent = True

    batch = collate([cut_clip()])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for codec in (Counting(), Promising()):
            encode_batch(batch, codec, FrameIndexAudio(), "cpu")
            counts.append(-1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    first = counts.index(-1)
    assert set(counts[:first]) == {2} and set(counts[first + 1 : -1]) == {1}


def cut_clip() -> dict:
    from xdub.data.windows import cut_window
    from xdub.seeding import rng

    cut = cut_window(
        make_clip(0), phase="generator", window=13, geometry=PatchCodec.geometry, rng=rng("precision")
    )
    return cut | {"epoch": 0, "position": 0, "bad": {}}


def test_one_thread_restores_the_number_of_threads():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_a_network_keeps_its_buffers_and_a_judge_is_frozen_in_fp32():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert {p.dtype for p in network_in(network, "bf16", "cpu").parameters()} == {BF16}
    assert network[1].running_mean.dtype == FP32
    judge = frozen(network, "cpu")
    assert not judge.training
    assert {(p.dtype, p.requires_grad) for p in judge.parameters()} == {(FP32, False)}


def test_fp32_products_run_in_tf32_on_a_gpu_alone():
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [setting.allow_tf32 for setting in settings]
    try:
        for setting in settings:
            setting.allow_tf32 = False
        open_device("cpu")
        assert [setting.allow_tf32 for setting in settings] == [False, False]
        open_device("cuda")
        assert [setting.allow_tf32 for setting in settings] == [True, True]
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value
