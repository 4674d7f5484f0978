"""The code that travels is this code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from xdub.submit.wheels import build_wheels


def test_wheels_hold_the_packages_whole_and_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = build_wheels(tmp_path / "a"), build_wheels(tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    code = (
        "import sys; sys.path = [*sys.argv[1:], *(p for p in sys.path if not p.endswith('kernels'))]\n"
        "import xdub, xdub_kernels, xdub.cli\n"
        "from xdub.config import load_recipe\n"
        "load_recipe('tiny'); print(xdub.__file__); print(xdub_kernels.__file__)"
    )
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*command, *map(str, one)], check=True)
    run = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert all(line.startswith(str(target)) for line in run.stdout.splitlines())
    assert (target / "xdub/weights_tiny/generator.safetensors").is_file()
