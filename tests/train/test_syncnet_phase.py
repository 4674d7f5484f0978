"""`xdub train syncnet`: the trainer of all phases, on clips, with another network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from xdub.config import PerceptionConfig, load_recipe, recipe_from_dict
from xdub.data.samples import StreamSpec
from xdub.data.shards import ShardWriter
from xdub.data.stream import LocalStream
from xdub.data.testing import make_clip
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.model.codec import load_codec
from xdub.perception.syncnet.accuracy import AccuracyMeter
from xdub.perception.syncnet.load import load_sync
from xdub.perception.syncnet.own import OwnSyncNet
from xdub.train.learners import learner_of
from xdub.train.phases.syncnet import loss
from xdub.train.run import RunResult, train_phase
from xdub.train.state.export import write_export

SIZES = [
    "syncnet.size=16",
    "syncnet.width=8",
    "syncnet.embed_dim=16",
    "syncnet.clips=2",
    "syncnet.held_out=0.2",
]


def quiet(progress) -> None:
    """Show no progress."""


def settings(small, *overrides: str):
    return small(*SIZES, "train.ema=0", "train.lr=2e-3", *overrides)


def curve(folder: PhaseFolder) -> list[tuple]:
    return [(r["step"], r["loss"], r["sample_ids"]) for r in read_lines(folder.steps)]


@pytest.fixture(scope="module")
def whole(small, clips, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    out = tmp_path_factory.mktemp("whole")
    return train_phase("syncnet", settings(small), clips, out, local=True, progress=quiet)


def test_a_run_ends_with_a_file_that_the_recipe_can_name_and_with_its_accuracy(whole) -> None:
    assert (whole.status, whole.step) == ("finished", 6)
    path = str(whole.export / "model.safetensors")
    network = load_sync(PerceptionConfig(sync="syncnet", sync_path=path))
    assert isinstance(network, OwnSyncNet) and network.cfg.size == 16
    held_out = json.loads(whole.folder.result.read_text())["held_out"]
    assert held_out["clips"] == 2
    for table in (held_out["filmed"], held_out["codec"]):
        assert len(table["accuracy"]) == len(table["preferred"]) == 16
        assert 0 <= table["accuracy"][0] <= 1
        assert table["accuracy"][15] is None, "clips of 15 frames have no sound that is 15 frames later"
    metrics = {
        name for r in read_lines(whole.folder.journal) if r["kind"] == "metrics" for name in r["values"]
    }
    assert {
        "loss/choice",
        "loss/judge",
        "held_out/codec/accuracy_offset_00",
        "held_out/filmed/best_offset",
    } <= metrics


def test_held_out_clips_are_no_samples_and_do_not_depend_on_the_run(whole, small, clips) -> None:
    order = StreamSpec.from_recipe(settings(small), "syncnet", clips).order()
    apart = {order.clip_id(ref) for ref in order.held_out_rows}
    trained = {name for _, _, ids in curve(whole.folder) for name in ids}
    assert len(apart) == 2 and len(trained) == 10 and not apart & trained


def test_an_interrupted_run_continues_to_the_same_weights(whole, small, clips, tmp_path: Path) -> None:
    train_phase("syncnet", settings(small, "train.steps=3"), clips, tmp_path, local=True, progress=quiet)
    PhaseFolder(tmp_path, "syncnet").checkpoint(3).rename(tmp_path / "lost")
    again = train_phase("syncnet", settings(small), clips, tmp_path, resume=True, local=True, progress=quiet)
    assert [(step, ids) for step, _, ids in curve(again.folder)] == [
        (s, i) for s, _, i in curve(whole.folder)
    ]
    with pytest.raises(UserError, match="network="):
        train_phase(
            "syncnet", settings(small, "syncnet.jitter=0", "train.steps=8"), clips, tmp_path,
            resume=True, local=True,
        )  # fmt: skip


def test_the_loss_does_not_depend_on_the_division_into_micro_batches(small, clips) -> None:
    recipe = settings(small)
    learner, codec = learner_of(recipe, "syncnet"), load_codec(recipe.codec)
    model = learner.build(codec, base=None, init_from=None)
    encode, context = (
        learner.encoder(codec, torch.device("cpu")),
        learner.loss_context(codec, torch.device("cpu")),
    )
    values = []
    for size in (2, 4):
        spec = StreamSpec.from_recipe(settings(small, f"train.micro_batch={size}"), "syncnet", clips)
        batches = list(LocalStream(spec, steps=1))
        losses = [loss(model, encode(batch), context).total for batch in batches]
        values.append(torch.stack(losses).mean().item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_clip_that_repeats_in_a_batch_is_not_compared_with_itself(small, clips) -> None:
    recipe = settings(small, "train.micro_batch=2", "syncnet.window=13")
    learner, codec, cpu = learner_of(recipe, "syncnet"), load_codec(recipe.codec), torch.device("cpu")
    model = learner.build(codec, base=None, init_from=None)
    batch = learner.encoder(codec, cpu)(
        next(iter(LocalStream(StreamSpec.from_recipe(recipe, "syncnet", clips))))
    )
    twice = {**batch, "sample_id": [batch["sample_id"][0]] * 2}
    alone = learner_of(settings(small, "syncnet.clips=1"), "syncnet").loss_context(codec, cpu)
    expected = loss(model, twice, alone).total.item()
    context = learner.loss_context(codec, cpu)
    assert loss(model, twice, context).total.item() == pytest.approx(expected, rel=1e-5)
    assert loss(model, batch, context).total.item() != pytest.approx(expected, rel=1e-3)


def test_old_recipes_have_the_section_with_defaults_and_the_command_line_overrides_it() -> None:
    raw = load_recipe("xdub-1b").to_dict()
    del raw["syncnet"]
    recipe = recipe_from_dict(raw)
    train = recipe.for_phase("syncnet")
    assert (recipe.syncnet.size, recipe.syncnet.frames) == (128, 16)
    assert (train.steps, train.precision, train.workers) == (20_000, "fp32", 32)
    assert "syncnet" not in recipe.phase_names and recipe_from_dict(recipe.to_dict()) == recipe
    fewer = load_recipe("xdub-1b", ["train.steps=7", "train.workers=2", "syncnet.lr=0.1"]).for_phase(
        "syncnet"
    )
    assert (fewer.steps, fewer.workers, fewer.lr) == (7, 2, 0.1)
    # A SyncNet has no frozen layers, so settings that save the model's memory are not its own.
    lean = ["train.base_dtype=int8", "train.offload=blocks", "train.activation_checkpointing=full"]
    own = load_recipe("wan-5b", [*lean, "train.tune=adapter"]).for_phase("syncnet")
    assert (own.base_dtype, own.offload, own.activation_checkpointing) == (None, "none", "none")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["syncnet.clips=3"], "syncnet.clips=3 does not divide the micro batch of 2"),
        (["syncnet.size=100"], "syncnet.size=100 is not a power of two"),
        (["syncnet.width=6"], "syncnet.width=6 is not a multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(overrides, message, small, clips, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train_phase("syncnet", settings(small, *overrides), clips, tmp_path, local=True)


def speaking(seed: int, frames: int = 45, size: int = 32):
    """Return a clip of a flat face without landmarks, whose mouth opens with the loudness of its speech."""
    random = np.random.default_rng(seed)
    noise = np.convolve(random.standard_normal(frames + 8), np.hanning(5), mode="same")[4:-4]
    opening = np.clip(0.5 + 0.4 * noise / noise.std(), 0, 1)
    gain = np.interp(np.arange(frames * 640) / 640 - 0.5, np.arange(frames), opening)
    y, x = np.mgrid[:size, :size] / size
    pictures = np.empty((frames, size, size, 3), np.uint8)
    for picture, height in zip(pictures, 0.02 + 0.2 * opening, strict=True):
        picture[:] = 170
        picture[((x - 0.5) / 0.2) ** 2 + ((y - 0.66) / height) ** 2 < 1] = 30
    return make_clip(
        seed,
        num_frames=frames,
        size=size,
        frames=pictures,
        audio=(0.2 * gain * random.standard_normal(len(gain))).astype(np.float32),
        landmarks=np.full((frames, 68, 2), np.nan, np.float32),
    )


def test_a_short_training_recognises_unseen_speech_and_shuffled_sound_gives_chance(
    small, tmp_path: Path
) -> None:
    clips = [speaking(seed) for seed in range(40)]
    with ShardWriter(tmp_path / "clips") as writer:
        for clip in clips:
            writer.add(clip)
    recipe = settings(
        small, "train.steps=50", "train.global_batch=8", "train.micro_batch=8", "syncnet.clips=8",
        "train.lr=4e-3", "syncnet.width=16", "video.clip_frames=45",
    )  # fmt: skip
    result = train_phase("syncnet", recipe, tmp_path / "clips", tmp_path / "run", local=True, progress=quiet)
    table = json.loads(result.folder.result.read_text())["held_out"]["codec"]
    assert table["choice"] > 0.8
    network = load_sync(PerceptionConfig(sync="syncnet", sync_path=str(result.export / "model.safetensors")))
    meter = AccuracyMeter(network)
    unseen = [speaking(seed) for seed in range(100, 132)]
    video = torch.from_numpy(np.stack([c.frames for c in unseen])).permute(0, 4, 1, 2, 3) / 127.5 - 1
    sound = torch.nn.functional.pad(torch.from_numpy(np.stack([c.audio for c in unseen])), (16_000, 16_000))
    meter.add(video, sound.roll(5, 0), torch.full((32, 45, 68, 2), torch.nan))
    assert meter.result().choice == pytest.approx(0.5, abs=0.1)


def test_the_lip_phase_refuses_a_network_near_chance(small, pairs, tmp_path: Path) -> None:
    recipe = small("phases.lip.sync_accuracy=0.6")
    write_export(
        PhaseFolder(tmp_path, "editor").export,
        learner_of(recipe, "editor").build(load_codec(recipe.codec), base=None, init_from=None).state_dict(),
        {"kind": "model"},
    )
    message = r"^lip: the SyncNet tiny-syncnet chooses the right sound in \d\d% of cases on 12 samples"
    with pytest.raises(UserError, match=message):
        train_phase("lip", recipe, pairs, tmp_path, local=True, progress=quiet)
    unchecked = train_phase(
        "lip", small("train.steps=1"), pairs, tmp_path, local=True, resume=True, progress=quiet
    )
    assert unchecked.status == "finished"
