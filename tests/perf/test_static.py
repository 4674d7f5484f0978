"""The static check of the kernels' machine code: it passes, and it fails where it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf.__main__ import main
from perf.kernels.static import against_baseline, judge
from perf.kernels.static_build import Built, innermost_loops
from perf.kernels.static_cases import Case
from xdub_kernels import dispatch

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


def static(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`python -m perf static` in a process of its own: this one interprets kernels, that one compiles them."""
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    return subprocess.run(
        [sys.executable, "-m", "perf", "static", *arguments],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_kernels_build_clean_for_both_architectures():
    """A part; `.ci/run` builds them all."""
    done = static(
        "--arch", "80,90", "--only", "fwd d128 bfloat16 128x64|audio_attention_bwd|add_noise|rope_fwd"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failures" in done.stdout and "sm_80" in done.stdout and "sm_90" in done.stdout


@pytest.mark.slow
def test_a_deliberate_regression_fails(tmp_path):
    """Tiles that do not fit: the launch asks for more shared memory than an A100 has, or spills."""
    script = tmp_path / "regressed.py"
    script.write_text(
        "import sys\n"
        "from perf.kernels import static\n"
        "from xdub_kernels.attention import configs\n"
        "configs.HALF[80, 128]['fwd'] = [configs.Config(128, 128, 4, 4)]\n"
        "sys.exit(min(1, static.run([80], only='attention_fwd d128 bfloat16.* full')))\n"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    variables["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, script], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in done.stdout and ("shared memory" in done.stdout or "spills" in done.stdout)


def test_an_unknown_architecture_is_one_clear_line(capsys):
    assert main(["static", "--arch", "70"]) == 2
    assert capsys.readouterr().err.strip() == "--arch: 70 is unknown, choose among 80, 90"


def test_an_interpreter_that_would_compile_nothing_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "INTERPRETING", True)
    assert main(["static"]) == 2 and "unset it" in capsys.readouterr().err


GOOD = dict(registers=128, stack=0, shared=98_304, loop_instructions=500, loop_spills=0)
ATTENTION = Case("a", "attention_fwd", lambda: None, matmul=True, wide=True, pipelined=True)
MEMORY = Case("m", "flow_loss_fwd", lambda: None, memory_bound=True)


@pytest.mark.parametrize(
    ("case", "architecture", "changed", "complaint"),
    [
        (ATTENTION, 80, {"loop_spills": 2}, "spills in a loop"),
        (ATTENTION, 80, {"shared": 170_000}, "shared memory"),
        (ATTENTION, 80, {"stack": 4096}, "stack"),
        (ATTENTION, 80, {"instructions": {"mma": 8}}, "no cp.async"),
        (ATTENTION, 90, {"instructions": {"mma": 8}}, "no wgmma"),
        (MEMORY, 90, {"instructions": {"load128": 4, "store128": 4, "load16": 1}}, "2 bytes"),
        (MEMORY, 90, {"instructions": {"load128": 4}}, "16 bytes"),
    ],
)
def test_each_fault_is_named(case, architecture, changed, complaint):
    fine = {"mma": 8, "wgmma": 8, "cp.async": 4, "load128": 4, "store128": 4}
    assert judge(case, architecture, Built(**GOOD, instructions=fine)) == []
    assert complaint in "; ".join(
        judge(case, architecture, Built(**(GOOD | {"instructions": fine} | changed)))
    )


def test_a_loop_that_grew_is_told_and_a_new_case_asks_for_a_baseline():
    row = {"loop_instructions": 530}
    assert against_baseline(row, {"loop_instructions": 500}) != []
    assert against_baseline(row, {"loop_instructions": 520}) == []
    assert "--update" in against_baseline(row, None)[0]


def test_loops_are_found_and_the_last_branch_to_itself_is_none():
    lines = [
        (0, "NOP"),
        (16, "LDL R1"),
        (32, "@P0 BRA 0x10"),
        (48, "@P1 BRA 0x0"),
        (64, "EXIT"),
        (80, "BRA 0x50"),
    ]
    assert innermost_loops(lines) == [(16, 32)]
