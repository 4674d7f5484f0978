"""Remote file systems for the tests of uploads and restores."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The test files of this folder share the module `remote_side`.
sys.path.insert(0, str(Path(__file__).parent))

from remote_side import Flaky  # noqa: E402

from xdub.train.remote import upload  # noqa: E402


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry at once, and remove the hook of a test when the test ends."""
    monkeypatch.setattr(upload, "RETRY_SECONDS", (0.01,))
    yield
    Flaky.hook = staticmethod(lambda operation, path: None)


@pytest.fixture(params=["plain", "file", "memory", "flaky"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty remote, in every form of an address."""
    folder = tmp_path / "remote side"
    return {
        "plain": str(folder),
        "file": folder.as_uri(),
        "memory": f"memory://{tmp_path.name}",
        "flaky": f"flaky://{folder}",
    }[request.param]
