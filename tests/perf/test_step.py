"""`python -m perf step`: a real step at the tokens it names, failures as rows, and nothing left behind for others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from perf import rows
from perf.__main__ import main
from perf.kernels import compare, report
from perf.step import bench, figures, step
from perf.step.bench import Bench, batch, one_rank
from perf.step.case import Case, at_tokens, cases, prediction
from perf.step.table import table
from xdub.config import load_recipe
from xdub.plan.flops import ENCODED, step_parts, train_step_flops
from xdub.plan.gpus import known_gpu
from xdub.plan.shapes import shapes
from xdub_kernels import dispatch

ROOT = Path(__file__).parents[2]
CUT = ("model.hidden_size=32", "model.num_heads=2", "model.num_layers=1", "phases.editor.window=5",
       "phases.editor.motion_frames=1")  # fmt: skip
TOKENS = 16


def cut(
    *policies: str, tokens: tuple[int, ...] = (TOKENS,), phase: str = "editor", **changed: Any
) -> list[Case]:
    settings: dict[str, Any] = {"compiled": [False], "micro_batch": 1, "zero_stage": 0, "overrides": CUT}
    return list(cases("tiny", phase, tokens=tokens, policies=policies or ("none",), **(settings | changed)))


def measure(every: list[Case], *impls: str, seconds: float = 600, **changed: Any) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {"steps": 2, "warmup": 1, "gpu": None, "efficiency": 0.5}
    return step.measure(every, impls or ("reference",), seconds=seconds, **(settings | changed))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """Rows of the command itself: two token counts, all policies, one implementation."""
    path = tmp_path_factory.mktemp("step") / "r.jsonl"
    words = [
        "step",
        "--recipe",
        "tiny",
        "--tokens",
        "16",
        "30",
        "--steps",
        "2",
        "--warmup",
        "1",
        "--micro-batch",
        "2",
    ]
    words += [word for setting in CUT for word in ("--set", setting)]
    assert main([*words, "--impl", "reference", "--gpu", "h200", "--json", str(path)]) == 0
    return rows.read(path), path


def test_a_row_says_what_was_measured_where_and_what_was_planned(whole) -> None:
    all_rows, _ = whole
    assert [(row["tokens"], row["checkpointing"]) for row in all_rows] == [
        (tokens, policy) for tokens in (16, 36) for policy in ("attention", "none", "full")
    ]
    for row in all_rows:
        assert row["status"] == "ok" and row["samples"] == 2 and row["environment"]["commit"]
        assert row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"]
        assert sum(row["parts_ms"].values()) == pytest.approx(row["p50_ms"], rel=1e-6)
        assert row["tokens_per_s"] == pytest.approx(2e3 * row["tokens"] / row["p50_ms"])
        assert row["grad_norm"] > 0 and row["times_reference"] == 1
        # A CPU has no known peak, and torch does not count its memory.
        assert row["mfu"] is None and row["peak_bytes"] is None and row["environment"]["gpu"] is None
        assert row["planned"]["gpu"] == "h200" and row["planned"]["allocated_bytes"] > 0


def test_flops_are_those_of_the_plan_without_the_codec(whole) -> None:
    for row in whole[0]:
        setting = [*row["set"], f"video.size={row['side']}", "train.global_batch=2", "train.micro_batch=2"]
        recipe = load_recipe("tiny", [*setting, f"train.activation_checkpointing={row['checkpointing']}"])
        every = step_parts(recipe, "editor")
        assert row["planned"]["model_flops"] == train_step_flops(recipe, "editor")
        assert sum(row["planned"]["flops"].values()) == pytest.approx(sum(every.values()) - every[ENCODED])
        assert row["tflops"] == pytest.approx(row["planned"]["model_flops"] / row["p50_ms"] / 1e9)
        seconds = sum(row["planned"]["flops"].values()) / (known_gpu("h200").tflops * 1e12 * 0.4)
        assert row["planned"]["ms"] == pytest.approx(1e3 * seconds)


def test_all_policies_take_the_same_step(whole) -> None:
    for tokens in (16, 36):
        outcomes = {(row["loss"], row["grad_norm"]) for row in whole[0] if row["tokens"] == tokens}
        assert len(outcomes) == 1


def test_rows_can_be_compared_and_are_shown(whole, capsys) -> None:
    all_rows, path = whole
    assert main(["compare", str(path), str(path)]) == 0
    assert len(compare.changes(all_rows, all_rows)) == 6
    Console(width=160).print(table(all_rows))
    shown = capsys.readouterr().out
    assert "2 x 36" in shown and "planned ms at 40% of h200" in shown


def test_the_report_of_a_gpu_has_what_was_planned_beside_it(whole, tmp_path) -> None:
    gpu = {"environment": whole[0][0]["environment"] | {"gpu": "H200"}, "mfu": 0.5, "peak_bytes": 3 << 30}
    failed = {"status": "failed", "reason": "OutOfMemoryError"}
    first, second, *_ = (row | gpu for row in whole[0])
    rows.write(tmp_path / "h200" / "2026-01-01-abc.step.jsonl", [first, second | failed])
    text = report.report(report.STEPS, tmp_path)
    assert (
        "**H200**" in text and "| 50.0% | 3.0 |" in text and "| none | reference | failed |  |  |  |" in text
    )
    assert "No GPU has been measured" in report.report(report.STEPS, tmp_path / "nothing")


def test_the_model_sees_the_tokens_that_the_row_names() -> None:
    (case,) = cut(tokens=(40,), micro_batch=2)
    shapes = []
    with one_rank() as context:
        bench = Bench(context)
        bench.prepare(case)
        block = bench._engine.model.module.blocks[0]
        block.register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0].shape))
        bench.step()
        bench.discard()
    ((samples, frames, per_frame, _),) = shapes
    assert (samples, frames * per_frame) == (2, case.tokens) and case.tokens == 36


@pytest.mark.parametrize(
    ("target", "tokens", "side"), [(40_960, 40_960, 512), (10_240, 10_240, 256), (9_000, 9_000, 240)]
)
def test_the_papers_window_reaches_the_tokens_by_its_side(target, tokens, side) -> None:
    recipe = at_tokens(load_recipe("xdub-1b"), "editor", target)
    assert (shapes(recipe, "editor").tokens, recipe.video.size) == (tokens, side)
    assert recipe.phase("editor").window == 77


@pytest.mark.parametrize("phase", ["generator", "editor"])
def test_the_batch_is_what_the_loss_of_the_phase_takes(phase) -> None:
    (case,) = cut(phase=phase, overrides=[s.replace("editor", phase) for s in CUT])
    samples = batch(case, torch.device("cpu"))
    assert ("z_mask" in samples) == (phase == "generator")
    assert samples["z_ref"].shape[2] == (1 if phase == "generator" else samples["z0"].shape[2])
    assert samples["z0"].std() > 0.5 and samples["starts"].tolist() == [0, 2]


def test_our_kernels_take_the_same_step_as_the_reference(monkeypatch) -> None:
    """In Triton's interpreter; and what is called the reference runs none of them."""
    pytest.importorskip("triton")
    if not dispatch.INTERPRETING:
        pytest.skip("a GPU: `python -m perf step` measures there")
    from xdub_kernels.rope_attention import op

    calls, real, now = [], op.rope_attention_op, []

    def called(*x):
        if x[0].device.type != "meta":  # as in the planner's rehearsal
            calls.append(now[-1])
        return real(*x)

    monkeypatch.setattr(op, "rope_attention_op", called)
    chosen = bench.chosen
    monkeypatch.setattr(step, "chosen", lambda impl, device: now.append(impl) or chosen(impl, device))
    reference, ours = measure(cut(), "reference", "triton", steps=1)
    assert set(calls) == {"triton"}
    assert ours["status"] == "ok" and 0 < ours["error"] < 1e-3
    assert (reference["attention_core"], ours["attention_core"]) == ("sdpa", "triton")
    assert ours["times_reference"] == reference["p50_ms"] / ours["p50_ms"]


def test_what_does_not_fit_is_a_row_and_the_others_go_on(monkeypatch) -> None:
    real, built = Bench.step, []

    def short_of_memory(self: Bench):
        if self._case.policy == "none":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        built.append(self._engine)
        return real(self)

    monkeypatch.setattr(Bench, "step", short_of_memory)
    lost, other = measure(cut("none", "full"))
    assert (lost["status"], lost["reason"]) == (
        "failed", "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
    )  # fmt: skip
    assert other["status"] == "ok" and "p50_ms" not in lost and lost["planned"]["allocated_bytes"] > 0


def test_one_implementation_that_fails_leaves_the_other_its_steps(monkeypatch) -> None:
    real, engines = Bench.step, []

    def fails_when_chosen(self: Bench):
        engines.append(self._engine)
        if not dispatch.HAVE_TRITON and len(engines) == 3:
            raise RuntimeError("no kernel image")
        return real(self)

    monkeypatch.setattr(Bench, "step", fails_when_chosen)
    monkeypatch.setattr(step, "obstacle", lambda *_: None)
    monkeypatch.setattr(bench.dispatch, "rehearsing_gpu", lambda: bench.nullcontext())
    lost, kept = measure(cut(), "reference", "triton")
    assert lost["reason"] == "RuntimeError: no kernel image"
    assert kept["status"] == "ok" and kept["samples"] == 2
    assert engines[0] is not engines[-1]  # nothing is timed on what a failure left


def test_an_implementation_that_computes_something_else_is_called_wrong() -> None:
    rows_of_case = [
        {"provider": name, "status": "ok", "p50_ms": 2.0, "loss": loss, "grad_norm": 1.0}
        for name, loss in (("reference", 1.0), ("triton", 1.1))
    ]
    figures.compare(rows_of_case, 0.02)
    assert [row["status"] for row in rows_of_case] == ["ok", "wrong"] and "1.0e-01" in rows_of_case[1][
        "reason"
    ]


def test_nothing_begins_after_the_minutes_are_over() -> None:
    started = time.monotonic()
    (row,) = measure(cut(), seconds=-1)
    assert row["status"] == "not-measured" and "minutes" in row["reason"]
    assert time.monotonic() - started < 20


def test_without_a_gpu_our_kernels_say_why_they_do_not_run(monkeypatch) -> None:
    monkeypatch.setattr(dispatch, "INTERPRETING", False)
    if torch.cuda.is_available():
        pytest.skip("there is one")
    (row,) = measure(cut(), "triton")
    assert row["status"] == "unavailable" and "CUDA device" in row["reason"]


def test_the_process_group_can_be_made_and_ended_again_and_again() -> None:
    for _ in range(2):
        (row,) = measure(cut(), steps=1)
        assert row["status"] == "ok"


def test_the_plan_of_a_latent_step_leaves_out_codec_and_reserve() -> None:
    (case,) = cut()
    planned = prediction(case, None, 0.4)
    left = {"reserve", "frozen_networks"}
    assert planned["allocated_bytes"] == sum(v for k, v in planned["memory"].items() if k not in left)
    assert planned["ms"] is None


def test_a_mistake_is_one_line(capsys) -> None:
    assert main(["step", "--recipe", "tiny", "--set", "train.stepps=1"]) == 2
    assert main(["step", "--gpu", "z80"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "train.stepps" in first and "z80" in second


UNUSED_PACKAGES = (
    "ray mlflow mediapipe moderngl transformers diffusers av cv2 peft matplotlib typer decord onnxruntime insightface "
    "pyarrow fsspec PIL pandas scipy sklearn"
).split()
"""Packages that a rented GPU machine does not have."""


def test_a_machine_with_torch_and_deepspeed_alone_can_measure(tmp_path: Path) -> None:
    """`perf step` and `perf run` import none of the project's other packages."""
    step_words = "step --recipe tiny --tokens 16 --steps 1 --warmup 1 --checkpointing attention".split()
    step_words += [word for setting in CUT for word in ("--set", setting)]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({UNUSED_PACKAGES}))  # None: importing it fails\n"
        "from perf.__main__ import main\n"
        f"assert main({[*step_words, '--json', str(tmp_path / 's.jsonl')]}) == 0\n"
        f"assert main(['run', '--json', {str(tmp_path / 'r.jsonl')!r}]) == 0\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {
        "CUDA_VISIBLE_DEVICES": ""
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert [row["status"] for row in rows.read(tmp_path / "s.jsonl")] == ["ok", "unavailable"]
