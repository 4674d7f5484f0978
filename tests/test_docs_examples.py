"""Tests that run the examples of writing-a-phase.md and adding-a-kernel.md as the pages show them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```\w+\n# (\S+?)(?:, [^\n]*)?\n(.*?)^```$", re.M | re.S)
"""A fenced block whose first line names its file."""


def blocks(page: str) -> dict[str, str]:
    """Return the text of every file that a page shows, by path."""
    return {name: text for name, text in BLOCK.findall((ROOT / "docs" / page).read_text("utf-8"))}


def run(arguments: list[str], path: Path, folder: Path, **environment: str) -> str:
    """Run Python with ``path`` in front of all other code, and return its output."""
    places = os.pathsep.join([str(path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


TRAIN = """
from pathlib import Path
import xdub
from xdub.bootstrap import stage_names
from xdub.config import load_recipe
from xdub.files.lines import read_lines
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.plan.network import count_network
from xdub.plan.storage import data
from xdub.plan.flops import step_parts
from xdub.train.run import train_phase

assert Path(xdub.__file__).is_relative_to(Path.cwd())
with ShardWriter("pairs") as writer:
    for seed in range(4):
        writer.add(make_clip(seed, num_frames=13, size=64, pair=True))
settings = ["model.num_layers=1", "train.global_batch=4", "train.num_threads=1", "phases.polish.steps=2"]
recipe = load_recipe("polish.yaml", [*settings, "phases.polish.window=13", "train.log_every=1"])
network = count_network(recipe, "polish")
epochs = data(recipe, "polish", network.parameters).paper_epochs
print(stage_names(recipe), epochs, "pixel losses" in step_parts(recipe, "polish", network))
result = train_phase("polish", recipe, "pairs", "run", local=True)
losses = set().union(*(line.get("values", {}) for line in read_lines(Path("run/polish/journal.jsonl"))))
weights = result.export / "model.safetensors"
print(result.status, result.step, weights.is_file(), sorted(losses & {"loss/flow", "loss/pixels"}))
"""


def test_the_phase_of_the_page_trains_after_the_three_edits(tmp_path: Path) -> None:
    phase, record, section = (blocks("writing-a-phase.md")[name] for name in (
        "xdub/train/phases/polish.py", "xdub/config/phases.py", "polish.yaml",
    ))  # fmt: skip
    copy = tmp_path / "xdub"
    shutil.copytree(ROOT / "xdub", copy, ignore=shutil.ignore_patterns("weights_tiny", "__pycache__"))
    (copy / "weights_tiny").symlink_to(ROOT / "xdub" / "weights_tiny")
    (copy / "train" / "phases" / "polish.py").write_text(phase)
    _insert(copy / "config" / "phases.py", r"^    Phase\(name=\"editor\".*\n", record)
    recipe = tmp_path / "polish.yaml"
    shutil.copyfile(ROOT / "xdub" / "recipes" / "tiny.yaml", recipe)
    _insert(recipe, r"^  editor: .*\n", section)
    stages, trained = run(["-c", TRAIN], tmp_path, tmp_path).splitlines()[-2:]
    assert stages == "('generator', 'pairs', 'editor', 'polish', 'lip', 'texture', 'bundle') None True"
    assert trained == "finished 2 True ['loss/flow', 'loss/pixels']"


def _insert(path: Path, behind: str, text: str) -> None:
    (line,) = re.finditer(behind, before := path.read_text("utf-8"), re.M)
    path.write_text(before[: line.end()] + text + before[line.end() :])


def test_the_kernel_of_the_page_passes_the_tests_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    files = blocks("adding-a-kernel.md")
    assert len(files) == 5
    shutil.copytree(
        ROOT / "kernels" / "xdub_kernels", tmp_path / "kernels" / "xdub_kernels",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(
        ROOT / "tests" / "kernels" / "triton" / "conftest.py", tmp_path / "tests" / "kernels" / "triton"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    interpret = os.environ.get("TRITON_INTERPRET", "0")
    output = run(arguments, tmp_path / "kernels", tmp_path, TRITON_INTERPRET=interpret)
    assert re.search(r"^11 passed", output, re.M), output
