"""Workers that share a sample train as one worker does, and a killed run continues at another number of them."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from xdub.config import Recipe
from xdub.data.samples import StreamSpec
from xdub.data.stream import LocalStream
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.model.codec import load_codec
from xdub.model.sequence import join_sequence_group
from xdub.perception.features import FaceFeatureNet
from xdub.perception.syncnet.tiny import TinySyncNet
from xdub.train.deepspeed_setup import import_deepspeed
from xdub.train.engine import Engine
from xdub.train.learners import learner_of
from xdub.train.meters import GlobalStep, RankStep
from xdub.train.networks import build_model
from xdub.train.phases import phase_loss
from xdub.train.phases.common import PhaseContext
from xdub.train.rank import TrainJob, train_rank
from xdub.train.run import train_phase
from xdub.train.supervise.cluster import choose_workers
from xdub.train.testing import GroupContext, run_ranks

STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def deepspeed() -> None:
    """Import what every rank needs before the ranks are forked, because the imports take seconds."""
    import_deepspeed(torch.device("cpu"))
    importlib.import_module("deepspeed.runtime.zero.stage3")
    importlib.import_module("torch._dynamo")

    # Else DeepSpeed's garbage collection takes a second in every rank.
    gc.freeze()


def losses(folder: PhaseFolder) -> list[float]:
    return [float.fromhex(record["loss"]) for record in read_lines(folder.steps)]


def train(rank: int, world_size: int, job: TrainJob, killed_after: int | None) -> None:
    """Train a rank, which kills itself after ``killed_after`` steps."""
    steps = 0

    def beat() -> None:
        nonlocal steps
        steps = len(list(read_lines(job.folder.steps)))
        if steps == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    train_rank(job, GroupContext(rank, world_size), LocalStream, beat)


@pytest.mark.slow
def test_a_killed_run_continues_at_another_sequence_parallel_size(small, clips, tmp_path: Path) -> None:
    """Two workers share samples and are killed; one worker continues and is killed; two workers finish."""

    def run(name: str, workers: int, killed_after: int | None) -> PhaseFolder:
        folder = PhaseFolder(tmp_path / name, "generator")
        folder.path.mkdir(parents=True, exist_ok=True)
        sizes = (f"train.workers={workers}", f"train.sequence_parallel={workers}")
        recipe = small(*sizes, "train.zero_stage=2", "train.ema=0", "train.micro_batch=4")
        job = TrainJob(folder=folder, recipe=recipe, data=(str(clips),))
        if killed_after is not None:
            with pytest.raises(RuntimeError, match="ranks ended with"):
                run_ranks(workers, train, job, killed_after)
        else:
            run_ranks(workers, train, job, None)
        return folder

    whole = run("whole", 1, None)
    for workers, killed_after in ((2, 3), (1, 5), (2, None)):
        folder = run("killed", workers, killed_after)
    records, expected = (list(read_lines(each.steps)) for each in (folder, whole))
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert [record["sample_ids"] for record in records] == [record["sample_ids"] for record in expected]
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-4)
    manifest = json.loads((folder.checkpoint(STEPS) / "manifest.json").read_text())
    assert (manifest["cursor"], manifest["sequence_parallel"]) == (4 * STEPS, 2)


def three_steps(
    rank: int, world_size: int, recipes: dict[str, Recipe], data: dict[str, str]
) -> dict[str, list[float]]:
    """Return phase -> loss terms and norms of the gradient of three steps on the first batch."""
    result = {}
    for name, recipe in recipes.items():
        phase = name.split()[0]
        settings = recipe.for_phase(phase)
        codec, device = load_codec(recipe.codec), torch.device("cpu")
        model = build_model(recipe, phase, codec, base=None, init_from=None)
        shared = settings.sequence_parallel
        group = join_sequence_group(shared, rank=rank, world_size=world_size)
        learner = learner_of(recipe, phase)
        learner.share_sequence(model, group)
        engine = Engine.build(model, settings, device=device, rank=rank, world_size=world_size)
        torch.manual_seed(0)
        frozen = {"sync": TinySyncNet(), "identity": FaceFeatureNet(), "features": FaceFeatureNet()}
        frozen = {role: net.eval().requires_grad_(False) for role, net in frozen.items()}
        context = PhaseContext(phase=recipe.phase(phase), seed=0, codec=codec, **frozen)
        spec = StreamSpec.from_recipe(recipe, phase, data[phase], rank=rank, world_size=world_size)
        with mock.patch.object(
            type(codec), "encode", autospec=True, side_effect=type(codec).encode
        ) as encodes:
            batch = learner.encoder(codec, device)(next(iter(LocalStream(spec))))
        videos = (3 if phase == "generator" else 2) * settings.micro_batch
        assert encodes.call_count == videos // shared, "the ranks do not encode in turn"
        values = []
        for _ in range(3):
            terms = phase_loss(phase)(engine.model, batch, context)
            engine.backward(terms.total, last=True)
            assert engine.step()
            values += [float(term.mean) for term in terms.terms.values()] + [engine.grad_norm]
        result[name] = values
    return result


def test_every_phase_has_the_losses_and_gradients_of_one_worker(small, clips, pairs) -> None:
    """The lip and texture phases decode frames; all workers of a group decode the same ones."""
    data = {"generator": str(clips), "lip": str(pairs), "texture": str(pairs)}

    def recipes(workers: int) -> dict[str, Recipe]:
        common = (
            f"train.workers={workers}", f"train.sequence_parallel={workers}", "train.micro_batch=4", "train.warmup=0",
            "train.lr=1e-2", "train.ema=0", "phases.texture.silent_prob=0.5", "model.text_tokens=3",
        )  # fmt: skip
        stages = {"generator": 0, "lip": 2, "texture": 3}
        return {name: small(*common, f"train.zero_stage={stage}") for name, stage in stages.items()}

    alone = run_ranks(1, three_steps, recipes(1), data)
    together = run_ranks(2, three_steps, recipes(2), data)
    for phase, values in alone.items():
        assert together[phase] == pytest.approx(values, rel=2e-4), phase
    assert [len(values) for values in alone.values()] == [6, 9, 12]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("train.workers=3", "train.sequence_parallel=2"), r"workers=3 .*not divisible by .*parallel=2"),
        (("train.workers=3", "train.sequence_parallel=3"), r"num_heads=2 attention heads: use one of 1, 2"),
        (("train.workers=6", "train.sequence_parallel=2"), r"global_batch=4 .*workers=6 / train.sequence_p"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_by_name(overrides, message, small) -> None:
    with pytest.raises(UserError, match=message):
        small(*overrides)


def test_one_local_worker_and_a_syncnet_share_no_sample(small, clips, tmp_path: Path) -> None:
    recipe = small("train.workers=2", "train.sequence_parallel=2")
    with pytest.raises(UserError, match="sequence_parallel=2 does not divide 1 worker;"):
        train_phase("generator", recipe, clips, tmp_path, local=True)
    recipe = small("train.workers=2", "syncnet.sequence_parallel=2")
    with pytest.raises(UserError, match="syncnet.sequence_parallel=2: the network has no tokens"):
        learner_of(recipe, "syncnet").check(2)


def test_an_elastic_run_keeps_whole_groups(small) -> None:
    train = small("train.workers=4", "train.sequence_parallel=2", "train.min_workers=1").for_phase(
        "generator"
    )
    assert [choose_workers(train, available) for available in (5, 4, 3, 2, 1)] == [4, 4, 2, 2, None]


def test_a_sample_of_several_ranks_counts_once_in_a_step() -> None:
    ranks = [RankStep(losses=[float(n // 2)], sample_ids=[f"clip {n // 2}"], data_wait=n) for n in range(4)]
    step: Any = GlobalStep.merge(ranks, 2)
    assert (step.loss, step.sample_ids, step.data_wait) == (0.5, ["clip 0", "clip 1"], 3)
