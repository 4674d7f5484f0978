"""The library in a plain script: under a Ray of its own and under the caller's; workers import only packages."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

INGEST = """
import os, sys
import ray.data
{before}
from xdub.data.ingest import ingest
from xdub.data.ledger import LedgerRow
from xdub.errors import UserError

def describe(source):
    import json
    message = json.dumps([sys.executable, sys.path, os.getcwd(), os.environ.get("RAY_API_SERVER_ADDRESS")])
    yield LedgerRow(input=source, status="rejected", check="trial", message=message)

try:
    ingest(["a", "b"], "out", lambda: describe, workers=2)
except UserError as error:
    print("ledger lists the reason" in str(error))
print(ray.is_initialized())
{after}
"""

BEFORE = """
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
"""
AFTER = """
import xdub.ray_machines as machines
from xdub.ray_session import disconnect, ensure_ray, is_ours

print(ensure_ray(8), is_ours())
disconnect()
machines.PATIENCE_SECONDS = 2.0

@ray.remote(num_cpus=1)
class Holder:
    def wait(self):
        return 1

holder = Holder.remote()
ray.get(holder.wait.remote())
import threading
threading.Timer(5, lambda: ray.kill(holder)).start()
machines.wait_for_worker("prepare", {"CPU": 1})
print(ray.is_initialized())
"""


def run(python: Path | str, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script from another folder than the current one, without Ray's settings in its environment."""
    script = folder.parent / "script" / "run.py"
    script.parent.mkdir()
    script.write_text(code)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    return subprocess.run(
        [str(python), str(script)], cwd=folder, env=variables, capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a current folder whose modules must not be imported."""
    path = tmp_path / "current"
    (path / "xdub").mkdir(parents=True)
    for name in ("torch", "numpy", "json", "ray"):
        (path / f"{name}.py").write_text("raise RuntimeError('imported from the current folder')")
    return path


def test_workers_start_from_a_path_with_blanks_and_import_nothing_from_the_current_folder(
    folder: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "my clone" / "x $HOME (dub)"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    installed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "base.pth").write_text("\n".join(installed))
    python = environment / "bin" / "python"
    done = run(python, folder, INGEST.format(before="", after=""))
    assert done.returncode == 0 and done.stderr == "", done.stderr[-2000:]
    assert done.stdout.splitlines() == ["True", "False"]
    rows = read_rows(folder)
    assert [row[0] for row in rows] == [str(python)] * 2
    for _, path, current, dashboard in rows:
        assert Path(current) == folder and dashboard == "http://127.0.0.1:9"
        assert not {"", ".", str(folder)} & set(path)


def test_a_ray_of_the_caller_is_used_and_stays_and_a_wait_for_its_processors_is_printed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "current"
    folder.mkdir()
    done = run(sys.executable, folder, INGEST.format(before=BEFORE, after=AFTER))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["True", "True", "False False", "True"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("prepare: ")]
    assert len(lines) == 1 and "a worker needs 1 CPU, of 1 CPU are free nothing" in lines[0], done.stderr


def read_rows(folder: Path) -> list[list]:
    """Return what the workers wrote into the messages of the ledger."""
    import json

    from xdub.data.ledger import Ledger

    return [json.loads(row.message) for row in Ledger(folder / "out").rows()]
