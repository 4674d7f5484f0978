"""A batch that would damage the weights is skipped; a run with damaged weights is rolled back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.train import guard
from xdub.train.guard import WARM, Guard
from xdub.train.run import train_phase


def quiet(progress) -> None:
    """Show no progress."""


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[int]], float]], None]:
    """Return a function that multiplies the loss by a function of the batch's positions in the data."""
    from xdub.train.phases import generator

    honest = generator.loss

    def install(factor: Callable[[list[int]], float]) -> None:
        def spoilt(model, batch, context):
            terms = honest(model, batch, context)
            return type(terms)(**vars(terms) | {"total": terms.total * factor(batch["positions"].tolist())})

        monkeypatch.setattr(generator, "loss", spoilt)

    return install


def samples(folder: PhaseFolder) -> list[list[str]]:
    return [record["sample_ids"] for record in read_lines(folder.steps)]


def skipped(folder: PhaseFolder) -> list[dict]:
    return list(read_lines(folder.skipped))


def test_a_batch_with_a_loss_that_is_not_finite_is_skipped_and_recorded(
    small, clips, tmp_path: Path, spoil, capsys
) -> None:
    spoil(lambda positions: math.nan if 10 in positions else 1.0)  # in the third global batch of four
    result = train_phase("generator", small(), clips, tmp_path, local=True, progress=quiet)
    assert (result.status, result.step) == ("finished", 6)
    (record,) = skipped(result.folder)
    assert (record["step"], record["cursor"], record["loss"]) == (3, 8, "nan")
    assert len(record["sample_ids"]) == 4 and record["objection"] == "the loss is not finite"
    assert "skipped a batch before step 3" in capsys.readouterr().err
    weights = load_file(result.export / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


def test_a_batch_with_an_exploding_loss_is_skipped_again_after_a_resume(
    small, clips, tmp_path: Path, spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "WARM", 2)
    spoil(lambda positions: 100.0 if 17 in positions else 1.0)  # in the fifth global batch
    whole = train_phase("generator", small(), clips, tmp_path / "whole", local=True, progress=quiet)
    (record,) = skipped(whole.folder)
    assert record["step"] == 5 and "times the usual" in record["objection"]

    def power_cut(model, context):
        raise RuntimeError("power cut")

    recipe = small("train.sample_every=5")
    with pytest.raises(RuntimeError, match="power cut"):
        train_phase(
            "generator", recipe, clips, tmp_path / "cut", local=True, progress=quiet, sampler=power_cut
        )
    last = train_phase("generator", small(), clips, tmp_path / "cut", resume=True, local=True, progress=quiet)
    assert samples(last.folder) == samples(whole.folder)
    assert [r["cursor"] for r in skipped(last.folder)] == [record["cursor"]]
    mine, theirs = (load_file(r.export / "model.safetensors") for r in (last, whole))
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def test_a_run_whose_skips_do_not_help_is_rolled_back_and_continues_after_the_bad_samples(
    small, clips, tmp_path: Path, spoil
) -> None:
    spoil(lambda positions: math.inf if 12 <= min(positions) < 24 else 1.0)  # three batches after step 3
    recipe = small("train.max_skips=3", "train.steps=7")
    result = train_phase("generator", recipe, clips, tmp_path, local=True, progress=quiet)
    assert [record["step"] for record in read_lines(result.folder.steps)] == [1, 2, 3, 4, 5, 6, 7]
    assert list(read_lines(result.folder.rollbacks)) == [{"step": 2, "cursor": 24}]
    assert len(skipped(result.folder)) == 3
    steps = [r["step"] for r in read_lines(result.folder.journal) if r["kind"] == "metrics"]
    assert steps == [2, 4, 6, 7]


def test_a_run_that_diverges_after_every_rollback_ends_with_the_samples_and_a_hint(
    small, clips, tmp_path: Path, spoil
) -> None:
    spoil(lambda positions: math.nan if min(positions) >= 16 else 1.0)
    with pytest.raises(
        UserError, match=r"diverges at step 3 \(the loss is not finite; samples: .*2 rollbacks did not help"
    ):
        train_phase("generator", small(), clips, tmp_path, local=True, progress=quiet)
    rollbacks = list(read_lines(PhaseFolder(tmp_path, "generator").rollbacks))
    assert [record["step"] for record in rollbacks] == [4, 2], (
        "the second rollback goes one checkpoint further back"
    )


@given(losses=st.lists(st.floats(0.1, 10.0), min_size=WARM, max_size=80), factor=st.floats(1.5, 20))
def test_only_losses_far_above_the_median_are_rejected(losses: list[float], factor: float) -> None:
    judge = Guard(factor)
    for loss in losses:
        judge.accept(loss)
    usual = sorted(losses[-guard.WINDOW :])
    assert judge.objection(usual[-1] * factor * 1.01)
    assert judge.objection(usual[0] * factor * 0.99) is None
    assert judge.objection(math.nan) and judge.objection(math.inf)
    assert Guard(0.0, judge.state()).objection(1e9) is None


def test_the_guard_accepts_every_loss_at_the_start_and_continues_from_its_state() -> None:
    young = Guard(2.0)
    for _ in range(WARM - 1):
        young.accept(1.0)
    assert young.objection(1e6) is None
    young.accept(1.0)
    young.skip()
    again = Guard(2.0, young.state())
    assert again.objection(2.1) and again.skipped_in_a_row == 1
