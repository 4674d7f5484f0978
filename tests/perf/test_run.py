"""`python -m perf`: honest rows without a GPU, a gate that lets nothing wrong pass, comparisons that refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perf import rows
from perf.__main__ import main
from perf.kernels import compare, gate, plot, report
from perf.kernels.ops import benches
from xdub_kernels import dispatch

ROOT = Path(__file__).parents[2]


def perf(*arguments: str, interpret: bool) -> subprocess.CompletedProcess:
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    variables["CUDA_VISIBLE_DEVICES"] = ""
    if interpret:
        variables["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "perf", *arguments], cwd=ROOT, env=variables, capture_output=True, text=True
    )


def test_without_a_gpu_every_row_says_so_and_none_has_a_number(tmp_path):
    done = perf("run", "--all", "--json", str(tmp_path / "r.jsonl"), interpret=False)
    assert done.returncode == 0, done.stderr
    measured_rows = rows.read(tmp_path / "r.jsonl")
    assert len(measured_rows) > 50
    for row in measured_rows:
        assert row["status"] == "not-measured" and row["reason"] == "no CUDA device"
        assert "p50_ms" not in row and row["environment"]["gpu"] is None and row["environment"]["commit"]


@pytest.mark.slow
def test_the_whole_run_works_in_the_interpreter_on_tiny_sizes(tmp_path):
    pytest.importorskip("triton")
    done = perf("run", "--all", "--shape", "tiny", "--json", str(tmp_path / "r.jsonl"), interpret=True)
    assert done.returncode == 0, done.stdout + done.stderr
    measured_rows = rows.read(tmp_path / "r.jsonl")
    checked = [row for row in measured_rows if row["status"] == "not-measured"]
    assert {row["kernel"] for row in checked if row["provider"].startswith("xdub")} == {
        "qk_norm_rope", "shifted_rope_attention", "attention", "frame_audio_attention", "weighted_flow_loss",
    }  # fmt: skip
    assert all(0 <= row["error"] < 0.1 and "p50_ms" not in row for row in checked)


def test_real_sizes_are_refused_in_the_interpreter(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(dispatch, "INTERPRETING", True)
    assert main(["run"]) == 2 and "--shape tiny" in capsys.readouterr().err


def test_an_unknown_kernel_is_named_with_what_there_is(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "INTERPRETING", False)
    assert main(["run", "--kernel", "softmax"]) == 2
    message = capsys.readouterr().err
    assert "softmax" in message and "frame_audio_attention" in message


@pytest.mark.parametrize(
    "kernel", ["qk_norm_rope", "attention", "frame_audio_attention", "weighted_flow_loss"]
)
def test_a_wrong_result_is_never_timed(kernel):
    """One that is off by a percent, in the output or in a gradient only, does not pass the gate."""
    bench = next(b for b in benches(["tiny"]) if b.kernel == kernel)
    inputs = bench.make(0, torch.float32, "cpu")
    gate.check(bench, bench.exact, inputs)

    class WrongGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            return grad * 1.01

    def scaled(*x):
        return tuple(1.01 * out for out in gate.outputs(bench.exact(*x)))

    def wrong_gradient(*x):
        return bench.exact(WrongGradient.apply(x[0]), *x[1:])

    for provider in (scaled, wrong_gradient):
        with pytest.raises(gate.Wrong, match="relative error"):
            gate.check(bench, provider, inputs)


def test_rows_of_a_large_result_are_checked_exactly():
    """The check of a few rows, which real sizes get, agrees with the whole and sees a wrong row."""
    bench = next(b for b in benches(["sweep"]) if b.kernel == "attention")
    q, k, v = (torch.randn(1, 300, 2, 8) for _ in range(3))
    assert gate.check(bench, bench.exact, [q, k, v]) < 1e-5
    with pytest.raises(gate.Wrong, match="output rows"):
        gate.check(
            bench, lambda *x: bench.exact(*x) * torch.linspace(0.9, 1.1, 300)[None, :, None, None], [q, k, v]
        )


def test_tuning_without_a_gpu_says_that_nothing_was_measured(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["tune"]) == 2 and "nothing was measured" in capsys.readouterr().err
    assert main(["tune", "--kernel", "softmax"]) == 2 and "bwd_kv_add" in capsys.readouterr().err


def row(p50: float, **changed) -> dict:
    return {
        "schema": rows.SCHEMA, "kernel": "attention", "shape": "3d", "mode": "fwd", "dtype": "bfloat16",
        "provider": "xdub-triton", "status": "ok", "p20_ms": p50, "p50_ms": p50, "p80_ms": p50, "noise": 0.002,
        "tflops": 500.0, "gbs": 10.0, "bound": "compute", "of_ceiling": 0.6, "error": 1e-3,
        "ceilings": {"copy_gbs": 4000.0, "matmul_tflops": 790.0},
        "environment": {"gpu": "H200", "torch": "2.13", "triton": "3.7", "commit": "abc"}, **changed,
    }  # fmt: skip


def test_compare_finds_what_got_slower_beyond_the_noise(tmp_path, capsys):
    for name, p50 in (("old", 10.0), ("new", 10.5), ("noise", 10.2)):
        rows.write(tmp_path / name, [row(p50)])
    assert main(["compare", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    assert "1.050  SLOWER" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "old"), str(tmp_path / "noise")]) == 0


def test_compare_refuses_other_gpus_and_other_ceilings():
    other = row(10.0, environment={"gpu": "A100"})
    assert "different GPUs" in compare.obstacle([row(10.0)], [other])
    slower = row(10.0, ceilings={"copy_gbs": 3000.0, "matmul_tflops": 790.0})
    assert "machine itself changed" in compare.obstacle([row(10.0)], [slower])
    assert compare.obstacle([row(10.0)], [row(11.0)]) is None


def test_a_broken_result_file_is_named_with_its_line(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(row(1.0)) + "\nnot json\n")
    with pytest.raises(ValueError, match=r"r\.jsonl:2"):
        rows.read(path)
    assert main(["compare", str(path), str(path)]) == 2 and "r.jsonl:2" in capsys.readouterr().err


def test_the_report_compares_with_ours_and_says_when_nothing_was_measured(tmp_path):
    assert "No GPU has been measured" in report.report(report.KERNELS, tmp_path)
    measured_rows = [row(10.0), row(12.0, provider="sdpa-flash"), row(11.0, provider="sdpa-cudnn")]
    rows.write(tmp_path / "h200" / "2026-01-01-abc.jsonl", measured_rows)
    full, short = (report.report(part, tmp_path) for part in (report.KERNELS, report.SUMMARY))
    assert "**H200**" in full and "| sdpa-flash | 12.0000 | 500 TFLOP/s | 60% | 1.20 x |" in full
    assert "| attention | 3d | fwd | xdub-triton 10.0000 ms | 60% | sdpa-cudnn | 1.10 x |" in short


def test_the_newest_run_of_a_gpu_counts_and_tuning_or_a_step_is_none(tmp_path):
    for name in ("01-01-abc.jsonl", "02-01-abc.jsonl", "03-01-abc.tune.jsonl", "04-01-abc.step.jsonl"):
        rows.write(tmp_path / "h200" / f"2026-{name}", [row(10.0)])
    assert [path.name for path in report.newest(tmp_path)] == ["2026-02-01-abc.jsonl"]
    assert [path.name for path in report.newest(tmp_path, ".step")] == ["2026-04-01-abc.step.jsonl"]


def test_the_documents_hold_what_the_result_files_say():
    for path, part in report.DOCUMENTS.items():
        document = path.read_text("utf-8")
        assert report.inserted(document, report.report(part)) == document


def test_a_plot_is_drawn(tmp_path):
    plot.figure([row(10.0), row(12.0, provider="sdpa-flash")]).savefig(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
